"""A cascade: ask the small model first, and let a judge of its answer decide whether a larger one is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.request import (
    Chooser,
    Completion,
    ContextWindowExceeded,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Request,
    books_in,
    clock,
    complete,
    hops,
    is_whole,
    joined,
    released,
)
from labkit.routing.checks import check_function
from labkit.routing.context import RoutingContext
from labkit.routing.desk import Case, Desk, check_setting
from labkit.routing.fallback import listed
from labkit.routing.judges import verdict
from labkit.routing.policy import RoutingPolicy
from labkit.routing.signals import Judge, Score


@dataclass(frozen=True)
class Cascade(Chooser):
    """Ask the smallest allowed model, hold its answer back, let `accept` judge it, and go up until a score is high enough.

    The last model's answer is streamed as it comes and is not judged. The cascade also goes up after an engine error, and
    when a prompt is too long for a model. If the last model's engine fails, the policy's fallbacks for it are asked, except
    those that were asked already. `logprobs` is the number of alternatives per token that models to be judged are asked for;
    the caller sees log-probabilities only if it asked for them itself. The judge is given the request as the judged model
    got it. A judge that fails counts as a score of 0, and its failure is on `Done.faults`.

    The `Done` belongs to the delivered answer: it has the usage and cost of that answer only. The books hold the cost of
    answers that were thrown away. Latency counts from the caller's request. The route gets "cascade:small>large". Floors,
    budgets, sessions and fallbacks hold as the policy says.
    """

    policy: RoutingPolicy
    accept: Judge
    logprobs: int | None = None
    context: RoutingContext = field(default_factory=RoutingContext)

    def __post_init__(self) -> None:
        check_setting(self.policy, self.context)
        check_function(self.accept, "a Cascade needs a judge, a function from a request and its Completion to a Score")
        if self.logprobs is not None and not is_whole(self.logprobs, 0):
            raise InvalidValue(f"logprobs is {self.logprobs!r:.80}; use None for none or a count from 0")

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that climbs the policy's models."""
        desk = Desk(models, self.policy, self.context)
        beneath = {name: books_in(model) for name, model in models.items()}

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, unix = clock.now(), clock.unix_now()
            case = desk.case(request)
            asked: tuple[str, ...] = ()
            for model in case.allowed[:-1]:
                asked = (*asked, model)
                answer = await _asked(desk, case, model, self.logprobs)
                if answer is None:
                    continue
                seen = replace(request, model=model, books=joined(request.books, beneath[model]))
                score = case.judged(await verdict(self.accept, seen, answer), "judge")
                if score.value >= self.policy.threshold(model):
                    desk.settle(case, asked)
                    for event in released(answer, keep_logprobs=request.logprobs is not None):
                        yield _delivered(event, case, asked, sent, unix)
                    return
                case.faults.extend(answer.done.faults)  # the answer is thrown away, but its faults are kept
            asked = (*asked, case.allowed[-1])
            desk.settle(case, asked)
            async with aclosing(desk.answer(case, asked[-1], asked)) as events:
                async for event in events:
                    yield _delivered(event, case, asked, sent, unix)

        return handle


async def _asked(desk: Desk, case: Case, model: str, logprobs: int | None) -> Completion | None:
    """The whole answer of a model, to be judged; None where its engine failed or the prompt is too long for it."""
    wanted = case.request
    if logprobs is not None:
        wanted = replace(wanted, logprobs=max(logprobs, wanted.logprobs or 0))
    try:
        return await complete(lambda request: desk.alone(model, request), wanted)
    except (EngineError, ContextWindowExceeded) as error:
        case.judged(Score(0.0, "engine", reason=f"{error!s:.200}"), "engine")
        return None


def _delivered(event: Event, case: Case, asked: tuple[str, ...], sent: float, unix: float) -> Event:
    if not isinstance(event, Done):
        return event
    return case.told(event.since(sent, unix).via(hops.hop(hops.CASCADE, listed(asked, ">"))))
