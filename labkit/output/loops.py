"""A model that goes round in circles up to its limit, and what ends it: measured on the same requests, and priced.

Grammars make it worse: between two tokens of JSON white space is free, so a model that does not know how to go on may write
line breaks until `max_tokens` (vllm#38696: one request in three). An answer of nothing then costs as much as the longest
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from labkit.cost import Price, price_request
from labkit.output.asking import asked_as, with_extra
from labkit.output.lengths import wilson
from labkit.request import (
    CUT_SHORT,
    Completion,
    Handler,
    InvalidValue,
    Lever,
    Request,
    complete,
    is_whole,
)
from labkit.routing import Interval


@dataclass(frozen=True)
class NoLoops(Lever):
    """The engine ends an answer whose last tokens are one passage, of up to `longest` tokens, `times` times over.

    vLLM's `repetition_detection`, which looks at tokens while it writes, so that a loop of one token costs `times` of them.
    Such an answer has finish reason "repetition". Text that repeats itself for a reason (a phone number with 000, rows of
    zeros) is ended, too, so try `times` on answers that are right before you rely on it: of the lab's 200, 3 times ended one
    and 6 times none. `labkit.streaming.Repeating` does the same from outside, on text, for engines without this field.
    """

    longest: int = 8
    times: int = 6

    def __post_init__(self) -> None:
        if not is_whole(self.longest, 1) or not is_whole(self.times, 2):
            raise InvalidValue(
                f"NoLoops looks for passages of up to {self.longest!r:.40} tokens, {self.times!r:.40} times; use at least 1 "
                "token and 2 times"
            )

    def over(self, inner: Handler) -> Handler:
        """`inner`, which ends loops."""

        rule = {"max_pattern_size": self.longest, "min_count": self.times}
        return asked_as(inner, lambda request: with_extra(request, repetition_detection=rule), "no-loops")


@dataclass(frozen=True, slots=True)
class WayOfAsking:
    """The answers that one way of asking brought, in the order of the requests; `level` is that of the interval of `cut`."""

    name: str
    answers: tuple[Completion, ...]
    level: float = 0.95

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many answers ended for each reason."""
        found: dict[str, int] = {}
        for answer in self.answers:
            found[answer.done.finish_reason] = found.get(answer.done.finish_reason, 0) + 1
        return found

    @property
    def cut(self) -> Interval:
        """The share of answers that were cut, by the limit or as a loop."""
        n = len(self.answers)
        cut = sum(answer.done.finish_reason in CUT_SHORT for answer in self.answers)
        return Interval(cut / n, *wilson(cut, n, self.level), self.level)

    @property
    def tokens(self) -> int:
        """Output tokens of all answers."""
        return sum(answer.done.usage.output_tokens for answer in self.answers)

    @property
    def blank(self) -> float:
        """The share of white space in all that was written."""
        text = "".join(answer.text for answer in self.answers)
        return sum(character.isspace() for character in text) / len(text) if text else 0.0

    @property
    def seconds(self) -> float:
        """The mean time of an answer, from its request to its end."""
        return sum(answer.done.timing.e2e or 0.0 for answer in self.answers) / len(self.answers)

    def cost(self, price: Price) -> Decimal:
        """What all answers cost by `price`."""
        return sum((price_request(answer.done.usage, price).total for answer in self.answers), Decimal(0))


async def compare_ways(
    ways: Mapping[str, Handler], requests: Sequence[Request], at_once: int = 4, level: float = 0.95
) -> tuple[WayOfAsking, ...]:
    """Ask each of `ways` the same `requests`, one way after the other, `at_once` at a time.

    To stage the loop, take a schema with a string in it, a model that was never taught that form, and as ways: an engine
    whose grammar leaves white space free; the same behind `NoLoops`; an engine with `disable_any_whitespace`; and the form
    with one spacing (`Structured(schema, spacing="spaced")`). Raises `InvalidValue` without requests, and what engines
    raise.
    """
    if not requests:
        raise InvalidValue("compare_ways was given no request; give it some to ask each way")
    found = []
    for name, handler in ways.items():
        gate = asyncio.Semaphore(at_once)

        async def ask(request: Request, handler: Handler = handler, gate: asyncio.Semaphore = gate) -> Completion:
            async with gate:
                return await complete(handler, request)

        found.append(WayOfAsking(name, tuple(await asyncio.gather(*map(ask, requests))), level))
    return tuple(found)
