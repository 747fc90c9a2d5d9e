"""Chapter 00: one answer and its receipt."""
# ruff: noqa: ARG001, ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from labkit.request import Chunk, Done, Event, Handler, Lever, Message, Request, Timing, Usage, clock, complete, stack
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b00
from labkit.workbook.chapters.q00 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, equals, holds


def full_price_tokens(usage: Usage) -> int:
    """Input tokens that were neither read from a cache nor written to one."""
    return usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens


def _check_full_price(answer: Callable[..., int], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, Usage(100, 5), expected=100, why="Nothing was cached, so all of the input is at full price.")
    for _ in range(20):
        total = rng.randrange(10, 9_000)
        cached = rng.randrange(1, total - 1)
        write = rng.randrange(1, total - cached + 1)
        yield agree(answer, Usage(total, rng.randrange(1, 500), cached, write), expected=total - cached - write)
    yield agree(answer, Usage(640, 5, cached_tokens=640), expected=0, why="A fully cached prompt has no full-price token.")


def time_per_output_token(sent: float, first_token: float, done: float, output_tokens: int) -> float | None:
    """TPOT in seconds; None where it is undefined."""
    if output_tokens < 2:
        return None
    return (done - first_token) / (output_tokens - 1)


def _check_tpot(answer: Callable[..., float | None], rng: random.Random) -> Iterator[Outcome]:
    for _ in range(20):
        sent, ttft, pace, tokens = rng.uniform(0, 99), rng.uniform(0.01, 2), rng.uniform(0.001, 0.1), rng.randrange(2, 400)
        first = sent + ttft
        # Built from the pace outwards, so that the expected value does not come from the formula under test.
        yield agree(answer, sent, first, first + pace * (tokens - 1), tokens, expected=pace, rel=1e-6)
    yield agree(answer, 1.0, 1.5, 1.75, 2, expected=0.25, why="Of two tokens, one comes after the first.")
    yield agree(answer, 1.0, 1.5, 1.5, 1, expected=None, why="One token has no token after the first: TPOT is undefined.")


@dataclass(frozen=True)
class Capped(Lever):
    """Lets no request ask for more than `ceiling` output tokens."""

    ceiling: int

    def over(self, inner: Handler) -> Handler:
        """`inner`, with each request's `max_tokens` limited to `ceiling`."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async with aclosing(inner(replace(request, max_tokens=min(request.max_tokens, self.ceiling)))) as events:
                async for event in events:
                    yield event

        return handle


def _check_capped(answer: Callable[[int], Lever], rng: random.Random) -> Iterator[Outcome]:
    seen: list[Request] = []
    closed: list[bool] = []

    async def engine(request: Request) -> AsyncGenerator[Event, None]:
        seen.append(request)
        try:
            for i in range(min(request.max_tokens, 6)):
                await asyncio.sleep(1)
                yield Chunk(f"w{i} ", clock.now())
            yield Done(Usage(3, min(request.max_tokens, 6)), Timing(0.0, done=clock.now()))
        finally:
            closed.append(True)

    def guarded(ceiling: int) -> Handler:
        return stack(answer(ceiling), engine=engine)

    for _ in range(10):
        wanted, ceiling = rng.randrange(1, 300), rng.randrange(1, 300)
        request = Request(
            (Message("user", "hello"),), max_tokens=wanted, tenant=f"t{rng.randrange(9)}", priority=rng.randrange(3)
        )
        seen.clear()
        result = clock.run_virtual(complete(call(guarded, ceiling), request))
        asked = f"a request for {wanted} tokens, ceiling {ceiling}"
        yield equals(f"what the engine was asked for, given {asked}", [r.max_tokens for r in seen], [min(wanted, ceiling)])
        yield holds(
            "nothing else about the request changes",
            replace(seen[0], max_tokens=wanted) == request,
            given=asked,
            why="Use dataclasses.replace: it copies every field that you do not name.",
        )
        yield equals(
            "the text passes through untouched", result.text, "".join(f"w{i} " for i in range(min(wanted, ceiling, 6)))
        )

    async def leave_early() -> bool:
        closed.clear()
        stream = call(guarded, 5)(Request((Message("user", "hello"),), max_tokens=5))
        await anext(stream)
        await stream.aclose()
        return bool(closed)

    yield holds(
        "when the caller leaves, the engine stops at once",
        clock.run_virtual(leave_early()),
        given="a caller that closes the stream after one chunk",
        why="Hold the inner stream in `async with aclosing(...)`; otherwise the engine goes on writing, and billing.",
    )


@dataclass(frozen=True)
class _Leaky(Lever):
    ceiling: int

    def over(self, inner: Handler) -> Handler:
        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async for event in inner(replace(request, max_tokens=min(request.max_tokens, self.ceiling))):
                yield event

        return handle


@dataclass(frozen=True)
class _Idle(Lever):
    ceiling: int

    def over(self, inner: Handler) -> Handler:
        return inner


CHAPTER = Chapter(
    number="00",
    name="start_here",
    title="Start here: one answer and its receipt",
    predictions=("00.input_tokens", "00.ttft_share", "00.counters"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("answers", "metrics"),
    exercises=(
        Exercise(
            id="00.1",
            title="What is billed at full price?",
            minutes=3,
            difficulty=1,
            answer="full_price_tokens",
            check=_check_full_price,
            reference=full_price_tokens,
            hints=(
                "Which fields of `usage` count input? Try `usage.` and the Tab key.",
                "`input_tokens` is the total. The other two are parts of it.",
                "Subtract both parts from the total.",
            ),
            wrong=(
                lambda usage: usage.input_tokens,
                lambda usage: usage.input_tokens + usage.cached_tokens,
                lambda usage: usage.input_tokens - usage.cached_tokens,
            ),
        ),
        Exercise(
            id="00.2",
            title="The pace of an answer",
            minutes=5,
            difficulty=1,
            answer="time_per_output_token",
            check=_check_tpot,
            reference=time_per_output_token,
            hints=(
                "How long did the engine write after the first token was there?",
                "And how many tokens did it write in that time? Not all of them: one was already there.",
                "With one token in all, there is nothing to divide by: return None.",
            ),
            wrong=(
                lambda sent, first_token, done, output_tokens: (done - first_token) / output_tokens,
                lambda sent, first_token, done, output_tokens: (done - sent) / output_tokens,
                lambda sent, first_token, done, output_tokens: (done - first_token) / max(1, output_tokens - 1),
            ),
        ),
        Exercise(
            id="00.3",
            title="Your first lever",
            minutes=10,
            difficulty=2,
            answer="Capped",
            check=_check_capped,
            reference=Capped,
            hints=(
                "`over` returns a handler: an async generator function that takes a request and yields events.",
                "`replace(request, max_tokens=...)` gives a copy of the request with one field changed.",
                "Copy the shape of `Shout` above; change the request on the way in instead of the text on the way out.",
            ),
            wrong=(
                _Idle,
                _Leaky,
                lambda ceiling: Capped(ceiling + 1),
            ),
        ),
        b00.BUILD,
    ),
)
