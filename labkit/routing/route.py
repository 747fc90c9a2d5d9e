"""Choosing a model before any model is asked, by a signal."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise

from labkit.request import Chooser, Done, Event, Handler, InvalidValue, Request, clock, hops
from labkit.routing.checks import check_function
from labkit.routing.context import RoutingContext
from labkit.routing.desk import Desk, check_setting
from labkit.routing.policy import RoutingPolicy
from labkit.routing.signals import Score, Signal, name_of, scored


@dataclass(frozen=True)
class Route(Chooser):
    """Send a request to the first allowed model whose threshold its score reaches, else to the last.

    Thresholds must not rise from one model to the next; if they do, `InvalidValue` is raised. A signal that fails counts as
    a score of 0, and its failure is on `Done.faults`. Floors, budgets, sessions and fallbacks hold as the policy says. The
    route gets "route:name". Latency counts from the caller's request and includes the signal's own time.
    """

    policy: RoutingPolicy
    signal: Signal
    context: RoutingContext = field(default_factory=RoutingContext)

    def __post_init__(self) -> None:
        check_setting(self.policy, self.context)
        check_function(self.signal, "a Route needs a signal, a function from a request to a Score")
        if any(later > earlier for earlier, later in pairwise(self.policy.thresholds)):
            raise InvalidValue(
                f"thresholds {self.policy.thresholds} rise: a score below the first can never reach the next; let them fall"
            )

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that chooses among the policy's models."""
        desk = Desk(models, self.policy, self.context)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, unix = clock.now(), clock.unix_now()
            case = desk.case(request)
            chosen = case.allowed[0]
            if case.why == "score":
                score = case.judged(_score(self.signal, request), "signal")
                chosen = next(
                    (model for model in case.allowed[:-1] if score.value >= self.policy.threshold(model)), case.allowed[-1]
                )
            desk.settle(case, (chosen,))
            async with aclosing(desk.answer(case, chosen)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        event = case.told(event.since(sent, unix).via(hops.hop(hops.ROUTE, chosen)))
                    yield event

        return handle


def _score(signal: Signal, request: Request) -> Score:
    """The score of a signal; where it fails, 0 with the error, so that a broken signal prefers the large model."""
    started, name = time.perf_counter(), name_of(signal)
    try:
        return scored(signal(request), name)
    except Exception as error:  # noqa: BLE001 - a signal that fails must not fail the request
        seconds = time.perf_counter() - started
        return Score(0.0, name, seconds=seconds, reason=f"the signal raised {error!r:.300}", error=error)
