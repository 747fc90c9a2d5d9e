"""Staged answers: a short answer first, and the long one for those who ask for more.

Most readers want the fact; some want the reasons. To write the reasons for all is dear, to write them for nobody is poor
service. The detail is a second turn of the same conversation, so the engine finds nearly all of its prompt in the cache.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Self

from labkit.cost import Price, price_request
from labkit.output.asking import keyed, next_turn
from labkit.output.verbosity import Verbosity
from labkit.request import Completion, Done, Event, Handler, InvalidValue, Lever, Request, hops, is_whole


@dataclass(frozen=True)
class Staged(Lever):
    """First a short answer, asked for by `short` and capped at `tokens`; the detail when the reader asks for it.

    `detail(request, answer)` is the request for more: the same conversation with the short answer and the question `more`.
    It is the same value for the same click, so two clicks are one question to any cache or single flight in the stack, and
    have one idempotency key. The lever knows it by its last message. It goes on without the cap and is told `long` in the
    place of `short`. Where `short` stands in the last message ("last"), it stays in that message as the conversation goes
    on, so the prefix of the detail is all that was read and written before; an instruction in the system prompt is replaced,
    and what follows it is read again.

    The route gets "output:staged-short" or "output:staged-detail". Raises `InvalidValue` for a cap below 1 token, and for an
    empty question.
    """

    tokens: int = 32
    more: str = "Please explain that in detail."
    short: Verbosity = field(default_factory=Verbosity)
    long: Verbosity = field(default_factory=lambda: Verbosity("detailed"))

    def __post_init__(self) -> None:
        if not is_whole(self.tokens, 1):
            raise InvalidValue(f"the short answer may have {self.tokens!r:.40} tokens; allow at least 1")
        if not isinstance(self.more, str) or not self.more.strip():
            raise InvalidValue(f"more is {self.more!r:.40}; say what the reader asks when they want more")
        for name in ("short", "long"):
            if not isinstance(getattr(self, name), Verbosity):
                raise InvalidValue(f"{name} is {getattr(self, name)!r:.80}; give a Verbosity, such as Verbosity('brief')")

    def detail(self, request: Request, answer: Completion | str) -> Request:
        """The reader's request for more: `request` is what was asked first, `answer` what it got."""
        said = answer if isinstance(answer, str) else answer.text
        return keyed(next_turn(request, said, self.more), "detail")

    def is_detail(self, request: Request) -> bool:
        """Whether `request` asks for the detail of a short answer."""
        last = request.messages[-1]
        return len(request.messages) > 2 and last.role == "user" and last.content == self.more

    def asking(self, request: Request) -> Request:
        """What is sent to the model for `request`, a first question or one for more."""
        if not self.is_detail(request):
            return replace(self.short.asking(request), max_tokens=min(request.max_tokens, self.tokens))
        if self.short.where == "last":
            head = self.short.asking(replace(request, messages=request.messages[:-2])).messages
            request = replace(request, messages=(*head, *request.messages[-2:]))
        return self.long.asking(request)

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked for short answers first."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            hop = hops.hop(hops.OUTPUT, "staged-detail" if self.is_detail(request) else "staged-short")
            async with aclosing(inner(self.asking(request))) as events:
                async for event in events:
                    yield event.via(hop) if isinstance(event, Done) else event

        return handle


@dataclass(frozen=True, slots=True)
class StagedBill:
    """Mean cost and mean time to the first token of three kinds of answers to the same questions, all measured.

    `brief`: the short answer; `more`: the detail that follows it; `detailed`: the long answer at once. Costs in one
    currency, times in seconds.
    """

    brief: Decimal
    more: Decimal
    detailed: Decimal
    brief_ttft: float = 0.0
    more_ttft: float = 0.0
    detailed_ttft: float = 0.0

    @classmethod
    def of(
        cls,
        brief: tuple[Completion, ...],
        more: tuple[Completion, ...],
        detailed: tuple[Completion, ...],
        price: Price,
    ) -> Self:
        """The bill of measured answers, by `price`. Raises `InvalidValue` where one of the three kinds is missing."""
        kinds = (brief, more, detailed)
        if not all(kinds):
            raise InvalidValue("StagedBill.of needs answers of all three kinds: brief, more and detailed")
        costs = [sum((price_request(a.done.usage, price).total for a in kind), Decimal(0)) / len(kind) for kind in kinds]
        waits = [sum(a.done.timing.ttft or 0.0 for a in kind) / len(kind) for kind in kinds]
        return cls(costs[0], costs[1], costs[2], *waits)

    def staged(self, share: float) -> Decimal:
        """The mean cost of a question where a `share` of readers (0 to 1) asks for more."""
        _check_share(share)
        return self.brief + Decimal(str(share)) * self.more

    @property
    def break_even(self) -> Decimal:
        """The share of readers asking for more at which staging costs as much as the long answer for all.

        (detailed − brief) / more. Above 1, staging is cheaper even if all ask; at 0 or below, it never is.
        """
        if not self.more:
            return Decimal("Infinity") if self.detailed > self.brief else Decimal(0)
        return (self.detailed - self.brief) / self.more

    def table(self, share: float) -> dict[str, tuple[Decimal, float, float]]:
        """For each way: the mean cost, the wait for the first words, and the wait of those who want all (s).

        Who wants all waits twice in the staged way, and gets it never in the brief one (infinity).
        """
        return {
            "always detailed": (self.detailed, self.detailed_ttft, self.detailed_ttft),
            "always brief": (self.brief, self.brief_ttft, float("inf")),
            "staged": (self.staged(share), self.brief_ttft, self.brief_ttft + self.more_ttft),
        }


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidValue(f"the share of readers who ask for more is {share}; it lies from 0 to 1")
