"""The levers that choose a model: before the answer by a signal, or after the small model's answer by a judge (a cascade).

Both keep what the policy promises: floors, budgets, sessions, fallbacks. `models` maps the policy's names to handlers; wrap
each in `booked`, so that an attempt whose answer was thrown away is in the books like the one that was delivered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from labkit.request import ContextWindowExceeded, Done, EngineError, Event, Handler, InvalidRequest, Request, clock, complete
from labkit.routing.health import Breaker, with_fallback
from labkit.routing.judges import verdict
from labkit.routing.policy import Policy
from labkit.routing.signals import Judge, Score, Signal
from labkit.routing.streams import released, since

Spent = Callable[[str], Decimal]
"""What a tenant has spent in the budget's period, in the currency of the policy's budgets."""
Why = Literal["score", "only", "budget"]
_SESSIONS = 10_000  # the latest are remembered; an older one starts anew, which costs money and breaks no floor


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for a request, for the records: by which policy, on which scores, and who was asked, in order.

    `why` is "score" where scores decided, "only" where floors or the session left one model, "budget" where it was spent.
    """

    policy: str
    models: tuple[str, ...]
    scores: tuple[Score, ...]
    why: Why


Observe = Callable[[Request, Decision], None]


def route_before(
    models: Mapping[str, Handler],
    policy: Policy,
    signal: Signal,
    *,
    spent: Spent | None = None,
    breaker: Breaker | None = None,
    first_token_s: float = 60.0,
    observe: Observe | None = None,
) -> Handler:
    """Send a request to the first allowed model whose threshold its score reaches, else to the last.

    With more than two models the thresholds must not rise from one to the next. A signal that raises counts as 0. The route
    gets "route", name. `breaker` and `first_token_s` are those of `with_fallback`; budgets need `spent`, which is asked when
    a request arrives, so requests under way together can overrun a budget by what they cost. `observe` sees each decision.
    """
    if any(later > earlier for earlier, later in pairwise(policy.thresholds)):
        raise InvalidRequest(
            f"thresholds {policy.thresholds} rise: a score below the first can never reach the next; let them fall"
        )
    desk = _Desk(models, policy, spent, breaker or Breaker(), first_token_s)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        allowed, why = desk.allowed(request)
        scores: tuple[Score, ...] = ()
        chosen = allowed[0]
        if why == "score":
            scores = (_scored(signal, request),)
            chosen = next((m for m in allowed[:-1] if scores[0].value >= policy.threshold(m)), allowed[-1])
        desk.settle(request, chosen)
        if observe is not None:
            observe(request, Decision(policy.version, (chosen,), scores, why))
        async with aclosing(desk.model(request, chosen, why)(request)) as events:
            async for event in events:
                yield event.via(chosen).via("route") if isinstance(event, Done) else event

    return handle


def cascade(
    models: Mapping[str, Handler],
    policy: Policy,
    accept: Judge,
    *,
    logprobs: int | None = None,
    spent: Spent | None = None,
    breaker: Breaker | None = None,
    first_token_s: float = 60.0,
    observe: Observe | None = None,
) -> Handler:
    """Ask the smallest allowed model, hold its answer back, let `accept` judge it, and go up until a score is high enough.

    The last model's answer is streamed as it comes and not judged. An engine error, or a prompt too long for a model, goes
    up as well; what fails at the last model goes on to its fallbacks that were not asked yet. `logprobs` asks models that
    will be judged for so many alternatives; the caller sees them only if it asked for them itself.

    The `Done` is that of the answer delivered: its usage and cost, not those of answers thrown away, which the books hold.
    Its latency counts from the caller's request. The route gets "cascade", "small>large". For the rest see `route_before`.
    """
    desk = _Desk(models, policy, spent, breaker or Breaker(), first_token_s)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent, unix = clock.now(), clock.unix_now()
        allowed, why = desk.allowed(request)
        scores: list[Score] = []
        for at, model in enumerate(allowed[:-1]):
            wanted = request
            if logprobs is not None:
                wanted = replace(request, logprobs=max(logprobs, request.logprobs or 0))
            try:
                answer = await complete(desk.alone(model), wanted)
            except (EngineError, ContextWindowExceeded) as error:
                scores.append(Score(0.0, "engine", reason=f"{error!s:.200}"))
                continue
            scores.append(await verdict(accept, request, answer))
            if scores[-1].value >= policy.threshold(model):
                asked = allowed[: at + 1]
                desk.settle(request, model)
                if observe is not None:
                    observe(request, Decision(policy.version, asked, tuple(scores), why))
                for event in released(answer, keep_logprobs=request.logprobs is not None):
                    yield _delivered(event, asked, sent, unix)
                return
        desk.settle(request, allowed[-1])
        if observe is not None:
            observe(request, Decision(policy.version, allowed, tuple(scores), why))
        async with aclosing(desk.model(request, allowed[-1], why, asked=allowed)(request)) as events:
            async for event in events:
                yield _delivered(event, allowed, sent, unix)

    return handle


def _delivered(event: Event, asked: tuple[str, ...], sent: float, unix: float) -> Event:
    return since(event, sent, unix).via(">".join(asked)).via("cascade") if isinstance(event, Done) else event


def _scored(signal: Signal, request: Request) -> Score:
    started = time.perf_counter()
    try:
        return signal(request)
    except Exception as error:  # noqa: BLE001 - a broken signal must not break requests; they go to the large model
        return Score(0.0, "signal", seconds=time.perf_counter() - started, reason=f"the signal raised {error!r}")


class _Desk:
    """What both levers share: who may be asked, what the session needed so far, and the models with their fallbacks."""

    def __init__(
        self,
        models: Mapping[str, Handler],
        policy: Policy,
        spent: Spent | None,
        breaker: Breaker,
        first_token_s: float,
    ) -> None:
        missing = [model for model in policy.models if model not in models]
        if missing:
            raise InvalidRequest(f"the policy names {', '.join(missing)}, which have no handler; add them to models")
        if policy.budgets and spent is None:
            raise InvalidRequest("the policy has budgets; give spent, which tells what a tenant has spent")
        self._models, self._policy, self._spent = models, policy, spent
        self._breaker, self._first_token_s = breaker, first_token_s
        self._sessions: OrderedDict[tuple[str, str], int] = OrderedDict()

    def allowed(self, request: Request) -> tuple[tuple[str, ...], Why]:
        """The models to choose from, cheapest first, and what settles it."""
        policy = self._policy
        allowed = policy.allowed(request)
        budget = policy.budgets.get(request.tenant)
        if budget is not None and self._spent is not None and self._spent(request.tenant) >= budget:
            return allowed[:1], "budget"
        session = policy.session(request)
        reached = self._sessions.get(session, 0) if session else 0
        allowed = tuple(model for model in allowed if policy.models.index(model) >= reached)
        return allowed, "score" if len(allowed) > 1 else "only"

    def settle(self, request: Request, model: str) -> None:
        """Remember the largest model that the session has had."""
        session = self._policy.session(request)
        if session:
            self._sessions[session] = max(self._policy.models.index(model), self._sessions.pop(session, 0))
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)

    def alone(self, model: str) -> Handler:
        """`model` behind its circuit."""
        return with_fallback(self._models, (model,), self._breaker, first_token_s=self._first_token_s)

    def model(self, request: Request, model: str, why: Why, asked: tuple[str, ...] = ()) -> Handler:
        """`model` and the fallbacks that the floors allow, less those `asked` already; none for who has spent a budget."""
        others = self._policy.fallbacks.get(model, ()) if why != "budget" else ()
        allowed = self._policy.allowed(request)
        order = (model, *(other for other in others if other in allowed and other not in asked))
        return with_fallback(self._models, order, self._breaker, first_token_s=self._first_token_s)
