"""What `Route` and `Cascade` share: allowed models, the largest model of each session, and models with their fallbacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from labkit.request import Done, Event, Fault, Handler, InvalidValue, Request
from labkit.routing.checks import check_models, is_number
from labkit.routing.context import RoutingContext, RoutingDecision, Why
from labkit.routing.fallback import in_turn
from labkit.routing.health import Breaker
from labkit.routing.policy import RoutingPolicy
from labkit.routing.signals import Score

_SESSIONS = 10_000  # only the latest are remembered; an older session starts again at the model that its floors allow


def check_setting(policy: object, context: object) -> None:
    """Raise `InvalidValue` where a policy cannot be followed in a context."""
    if not isinstance(policy, RoutingPolicy):
        raise InvalidValue(f"{policy!r:.80} is no RoutingPolicy; make one, or read one by RoutingPolicy.from_json")
    if not isinstance(context, RoutingContext):
        raise InvalidValue(f"{context!r:.80} is no RoutingContext; give RoutingContext(spent=…, breaker=…)")
    if policy.budgets and context.spent is None:
        raise InvalidValue("the policy has budgets; give RoutingContext(spent=…), which tells what a tenant has spent")


@dataclass(slots=True)
class Case:
    """One request being routed: the models it may go to (cheapest first), what limited them, its scores and its faults."""

    request: Request
    allowed: tuple[str, ...]
    why: Why
    faults: list[Fault] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)

    def judged(self, score: Score, where: str) -> Score:
        """Record a score, and its error as a fault if it has one; returns the score."""
        self.scores.append(score)
        if score.error is not None:
            self.faults.append(Fault(where, score.error))
        return score

    def told(self, done: Done) -> Done:
        """`done` with all faults of this case added."""
        for fault in self.faults:
            done = done.beside(fault.where, fault.error)
        return done


class Desk:
    """Applies a policy to requests over `models`. Raises `InvalidValue` where one of the policy's models is missing."""

    def __init__(self, models: Mapping[str, Handler], policy: RoutingPolicy, context: RoutingContext) -> None:
        check_models("the policy", policy.models, models)
        self._models, self._policy, self._context = models, policy, context
        self._breaker = Breaker() if context.breaker is None else context.breaker
        self._sessions: OrderedDict[tuple[str, str], int] = OrderedDict()

    def case(self, request: Request) -> Case:
        """The case of `request`: the models to choose from, by floors, budget and session."""
        policy = self._policy
        case = Case(request, policy.allowed(request), "only")
        budget = policy.budgets.get(request.tenant)
        if budget is not None and self._spent(case) >= budget:
            case.allowed, case.why = case.allowed[:1], "budget"
            return case
        session = policy.session(request)
        reached = self._sessions.get(session, 0) if session else 0
        case.allowed = tuple(model for model in case.allowed if policy.models.index(model) >= reached)
        case.why = "score" if len(case.allowed) > 1 else "only"
        return case

    def settle(self, case: Case, asked: tuple[str, ...]) -> None:
        """Record that the last of `asked` is to answer: keep the session's largest model, and call `observe`.

        A fallback that answers in its place is not recorded for the session.
        """
        session = self._policy.session(case.request)
        if session:
            self._sessions[session] = max(self._policy.models.index(asked[-1]), self._sessions.pop(session, 0))
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        if self._context.observe is not None:
            decision = RoutingDecision(self._policy.version, asked, tuple(case.scores), case.why)
            try:
                self._context.observe(case.request, decision)
            except Exception as error:  # noqa: BLE001 - an observer that fails must not cost the caller its answer
                case.faults.append(Fault("observe", error))

    def alone(self, model: str, request: Request) -> AsyncGenerator[Event, None]:
        """The answer of `model` through its circuit, without fallbacks."""
        return in_turn(self._models, (model,), self._breaker, self._context.first_token_s, request)

    def answer(self, case: Case, model: str, asked: tuple[str, ...] = ()) -> AsyncGenerator[Event, None]:
        """The answer of `model`; where it fails, of its fallbacks that the floors allow and that are not in `asked`.

        A tenant that has spent its budget gets no fallbacks.
        """
        others = self._policy.fallbacks.get(model, ()) if case.why != "budget" else ()
        allowed = self._policy.allowed(case.request)
        order = (model, *(other for other in others if other in allowed and other not in asked))
        return in_turn(self._models, order, self._breaker, self._context.first_token_s, case.request)

    def _spent(self, case: Case) -> Decimal | float:
        """What the tenant has spent; where `spent` fails, 0 and a fault."""
        if self._context.spent is None:
            return 0.0
        tenant = case.request.tenant
        try:
            spent: Any = self._context.spent(tenant)
            if not (spent.is_finite() if isinstance(spent, Decimal) else is_number(spent)):
                raise InvalidValue(f"spent({tenant!r}) returned {spent!r:.80}; it must return an amount of money")
        except Exception as error:  # noqa: BLE001 - unknown spending must not cost the caller its answer
            case.faults.append(Fault("spent", error))
            return 0.0
        return spent if isinstance(spent, Decimal) else float(spent)
