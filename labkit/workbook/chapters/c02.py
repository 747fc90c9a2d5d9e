"""Chapter 02: where the waiting comes from."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from itertools import pairwise

from labkit.request import Chunk, Done, Event, Handler, Message, Request, Timing, Usage, clock, complete
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b02
from labkit.workbook.chapters.q02 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, equals, holds


def three_clocks(sent: float, arrivals: Sequence[float], tokens: int) -> tuple[float, float | None, float]:
    """TTFT, TPOT (None for a single token) and the longest pause between chunks (0 for a single chunk), in seconds."""
    ttft = arrivals[0] - sent
    tpot = (arrivals[-1] - arrivals[0]) / (tokens - 1) if tokens > 1 else None
    pause = max((b - a for a, b in pairwise(arrivals)), default=0.0)
    return ttft, tpot, pause


def _check_clocks(answer: Callable[..., tuple[float, float | None, float]], rng: random.Random) -> Iterator[Outcome]:
    def outcome(sent: float, arrivals: list[float], tokens: int) -> Iterator[Outcome]:
        given = f"sent={sent:.3f}, arrivals={[round(a, 3) for a in arrivals]}, tokens={tokens}"
        got = call(answer, sent, arrivals, tokens)
        yield holds("three values come back", isinstance(got, tuple) and len(got) == 3, given=given, actual=repr(got))
        for name, mine, right in zip(
            ("TTFT", "TPOT", "longest pause"), got, three_clocks(sent, arrivals, tokens), strict=True
        ):
            same = mine is None if right is None else mine is not None and abs(mine - right) <= 1e-9 * max(1.0, abs(right))
            yield holds(name, same, given=given, expected=repr(right), actual=repr(mine))

    yield from outcome(10.0, [10.5], 1)
    yield from outcome(10.0, [10.5, 10.75], 2)
    yield from outcome(10.0, [10.5], 3)
    for _ in range(20):
        sent = rng.uniform(0, 1000)
        arrivals = [sent + rng.uniform(0.01, 0.5)]
        for _ in range(rng.randrange(0, 12)):
            arrivals.append(arrivals[-1] + rng.expovariate(20))
        # A chunk may carry several tokens, so the number of chunks does not give the number of tokens.
        yield from outcome(sent, arrivals, len(arrivals) + rng.randrange(0, 5) if len(arrivals) > 1 else 1)


Answered = tuple[float | None, float | None]


def goodput(answers: Sequence[Answered], seconds: float, ttft: float, tpot: float) -> float:
    """Requests per second that met both objectives. An answer is (TTFT, TPOT) in seconds.

    A TTFT of None means that the request failed; a TPOT of None, that its answer had one token.
    """
    met = sum(1 for first, per in answers if first is not None and first <= ttft and (per is None or per <= tpot))
    return met / seconds


def _check_goodput(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer,
        [(0.1, 0.01), (0.9, 0.01), (0.1, 0.9), (None, None), (0.1, None)],
        10.0,
        0.5,
        0.05,
        expected=0.2,
        why="One missed its TTFT, one its TPOT, one failed; an answer of one token has no TPOT to miss.",
    )
    yield agree(
        answer,
        [(0.5, 0.01), (0.1, 0.05), (0.5, 0.05)],
        10.0,
        0.5,
        0.05,
        expected=0.3,
        why="Exactly at a limit is within it.",
    )
    for _ in range(20):
        answers: list[Answered] = []
        for _ in range(rng.randrange(1, 60)):
            first = None if rng.random() < 0.1 else rng.uniform(0, 1)
            answers.append((first, None if first is None or rng.random() < 0.1 else rng.uniform(0, 0.1)))
        seconds, ttft, tpot = rng.uniform(1, 100), rng.uniform(0.1, 1), rng.uniform(0.01, 0.1)
        yield agree(answer, answers, seconds, ttft, tpot, expected=goodput(answers, seconds, ttft, tpot))


async def send_on_time(handler: Handler, requests: Sequence[Request], times: Sequence[float]) -> list[float]:
    """Send each request at its time, in seconds from now, without waiting for other answers; return the TTFTs in order.

    A TTFT, in seconds, counts from the time at which the request was due, so that a late sender cannot hide its delay.
    """
    begin = clock.now()

    async def one(request: Request, due: float) -> float:
        await asyncio.sleep(max(0.0, begin + due - clock.now()))
        answer = await complete(handler, request)
        return answer.chunks[0].at - (begin + due)

    return list(await asyncio.gather(*(one(r, t) for r, t in zip(requests, times, strict=True))))


async def _send_in_turn(handler: Handler, requests: Sequence[Request], times: Sequence[float]) -> list[float]:
    """Near miss: waits for each answer before it sends the next request."""
    begin, found = clock.now(), []
    for request, due in zip(requests, times, strict=True):
        await asyncio.sleep(max(0.0, begin + due - clock.now()))
        sent = clock.now()
        found.append((await complete(handler, request)).chunks[0].at - sent)
    return found


async def _send_all_at_once(handler: Handler, requests: Sequence[Request], times: Sequence[float]) -> list[float]:
    begin = clock.now()
    answers = await asyncio.gather(*(complete(handler, request) for request in requests))
    return [answer.chunks[0].at - begin - due for answer, due in zip(answers, times, strict=True)]


def _check_sender(answer: Callable[..., Awaitable[list[float]]], rng: random.Random) -> Iterator[Outcome]:
    for _ in range(6):
        n = rng.randrange(5, 12)
        times = sorted(rng.uniform(0, 10) for _ in range(n))
        stall = rng.uniform(3, 6)
        arrived: dict[str, float] = {}
        begun = rng.uniform(1, 100)

        async def engine(
            request: Request, arrived: dict[str, float] = arrived, stall: float = stall, begun: float = begun
        ) -> AsyncGenerator[Event, None]:
            """Answers after 50 ms in two chunks, but serves nobody from 1 s to 1 s + stall."""
            now = clock.now() - begun
            arrived[request.messages[0].content] = now
            ready = 1 + stall if 1 <= now < 1 + stall else now
            await asyncio.sleep(ready + 0.05 - now)
            yield Chunk("yes", clock.now())
            await asyncio.sleep(0.02)
            yield Chunk(" please", clock.now())
            yield Done(Usage(1, 1), Timing(now + begun, clock.now(), clock.now(), clock.now()))

        requests = [Request((Message("user", str(i)),)) for i in range(n)]

        async def run(
            requests: list[Request] = requests, times: list[float] = times, engine: Handler = engine, begun: float = begun
        ) -> list[float]:
            await asyncio.sleep(begun)
            return list(await answer(engine, requests, times))

        found = clock.run_virtual(run())
        given = (
            f"at {begun:.2f} s, {n} requests due in {[round(t, 2) for t in times]} s, and an engine that stalls from in 1 s "
            f"until in {1 + stall:.2f} s"
        )
        yield equals(f"one TTFT for each request, given {given}", len(found), n)
        late = [i for i, due in enumerate(times) if abs(arrived[str(i)] - due) > 1e-6]
        yield holds(
            "every request reaches the engine when it is due",
            not late,
            given=given,
            actual="late or early: " + ", ".join(f"#{i} at {arrived[str(i)]:.2f}" for i in late[:3]),
            why="Users do not wait for each other's answers before they ask.",
        )
        right = [(1 + stall if 1 <= due < 1 + stall else due) + 0.05 - due for due in times]
        wrong = [i for i, (mine, true) in enumerate(zip(found, right, strict=True)) if abs(mine - true) > 1e-6]
        yield holds(
            "TTFTs count from the time a request was due",
            not wrong,
            given=given,
            expected="; ".join(f"#{i}: {right[i]:.3f} s" for i in wrong[:3]),
            actual="; ".join(f"#{i}: {found[i]:.3f} s" for i in wrong[:3]),
        )


def decode_step(
    weight_bytes: float,
    flops_per_token: float,
    kv_bytes_per_token: float,
    batch: int,
    context: int,
    bandwidth: float,
    flops: float,
) -> float:
    """Seconds that a decode step takes at the least: all bytes at the peak, or all arithmetic, whichever is longer.

    `bandwidth` is in bytes per second, `flops` in floating-point operations per second, `context` in tokens per sequence.
    """
    read = weight_bytes + batch * context * kv_bytes_per_token
    return max(read / bandwidth, batch * flops_per_token / flops)


def _check_decode(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer,
        16e9,
        16e9,
        131072.0,
        1,
        0,
        3.2e12,
        800e12,
        expected=0.005,
        why="One token: the weights are read, and that is all.",
    )
    yield agree(
        answer,
        16e9,
        16e9,
        0.0,
        500,
        100,
        3.2e12,
        800e12,
        expected=0.01,
        why="500 tokens at once: now arithmetic takes longer.",
    )
    yield agree(
        answer,
        16e9,
        16e9,
        131072.0,
        500,
        100,
        3.2e12,
        800e12,
        expected=0.01,
        why="Its keys and values are read while it computes: that hides behind the arithmetic.",
    )
    yield agree(
        answer,
        16e9,
        16e9,
        131072.0,
        32,
        8000,
        3.2e12,
        800e12,
        expected=(16e9 + 32 * 8000 * 131072) / 3.2e12,
        why="Long contexts: now reading them takes longer than reading the weights.",
    )
    for _ in range(20):
        given = (
            rng.uniform(1e9, 2e11),
            rng.uniform(1e9, 2e11),
            rng.uniform(1e4, 5e5),
            rng.randrange(1, 600),
            rng.randrange(1, 30_000),
            rng.uniform(3e11, 8e12),
            rng.uniform(1e14, 2e15),
        )
        yield agree(answer, *given, expected=decode_step(*given))


_NEGATIVE_SLEEP = "asyncio.sleep returns at once for a time below 0 as it does for 0"

CHAPTER = Chapter(
    number="02",
    name="latency_anatomy",
    title="Latency anatomy: where the waiting comes from",
    predictions=("02.prefill", "02.batch", "02.error"),
    quizzes=QUIZZES,
    bank=BANK,
    needs=("answers", "metrics", "tokenizer"),
    exercises=(
        Exercise(
            id="02.1",
            title="Three clocks from one stream",
            minutes=5,
            difficulty=1,
            answer="three_clocks",
            check=_check_clocks,
            reference=three_clocks,
            hints=(
                "TTFT counts from the send to the first chunk; everything after it belongs to the other two.",
                "TPOT divides by tokens, not by chunks, and by one token less than there are: TTFT paid for the first.",
                "A single token has no TPOT, and a single chunk no pause: `max(..., default=0.0)`.",
            ),
            wrong=(
                lambda sent, arrivals, tokens: (
                    arrivals[0] - sent,
                    (arrivals[-1] - sent) / tokens,
                    max((b - a for a, b in pairwise(arrivals)), default=0.0),
                ),
                lambda sent, arrivals, tokens: (
                    arrivals[0] - sent,
                    (arrivals[-1] - arrivals[0]) / max(1, len(arrivals) - 1) if tokens > 1 else None,
                    max((b - a for a, b in pairwise(arrivals)), default=0.0),
                ),
            ),
        ),
        Exercise(
            id="02.2",
            title="Throughput that anybody would call good",
            minutes=5,
            difficulty=1,
            answer="goodput",
            check=_check_goodput,
            reference=goodput,
            hints=(
                "Count the requests that met both objectives, and divide by the time.",
                "A failed request meets nothing. An answer of one token has no TPOT, so it cannot miss it.",
            ),
            wrong=(
                lambda answers, seconds, ttft, tpot: len(answers) / seconds,
                lambda answers, seconds, ttft, tpot: (
                    sum(1 for a, b in answers if a is not None and b is not None and a <= ttft and b <= tpot) / seconds
                ),
                lambda answers, seconds, ttft, tpot: (
                    sum(1 for a, b in answers if a is not None and (a <= ttft or (b is not None and b <= tpot))) / seconds
                ),
            ),
        ),
        Exercise(
            id="02.3",
            title="What no machine can beat",
            minutes=10,
            difficulty=2,
            answer="decode_step",
            check=_check_decode,
            reference=decode_step,
            hints=(
                "Two roofs: all bytes that are read, over bandwidth; all arithmetic, over the peak.",
                "The longer of the two counts, not their sum: a machine can read and compute at the same time.",
                "The weights are read once a step, whatever the batch; keys and values once for each sequence and token.",
            ),
            wrong=(
                lambda w, f, kv, batch, context, bandwidth, flops: (
                    (w + batch * context * kv) / bandwidth + batch * f / flops
                ),
                lambda w, f, kv, batch, context, bandwidth, flops: max(
                    batch * (w + context * kv) / bandwidth, batch * f / flops
                ),
                lambda w, f, kv, batch, context, bandwidth, flops: max(w / bandwidth, batch * f / flops),
                lambda w, f, kv, batch, context, bandwidth, flops: (
                    max(w / bandwidth, batch * f / flops) + batch * context * kv / bandwidth
                ),
                lambda w, f, kv, batch, context, bandwidth, flops: max((w + batch * context * kv) / bandwidth, f / flops),
            ),
        ),
        Exercise(
            id="02.4",
            title="A load generator that does not wait",
            minutes=15,
            difficulty=3,
            answer="send_on_time",
            check=_check_sender,
            reference=send_on_time,
            hints=(
                "Give every request a task of its own that sleeps until it is due: `asyncio.gather`.",
                "The loop's clock is `clock.now()`. Remember when you began; a request is due at `begin + due`.",
                "TTFT is the first chunk's `at` minus the time the request was *due*, not the time it was sent.",
            ),
            wrong=(_send_in_turn, _send_all_at_once),
            equivalent={
                "line 9: max(0.0, begin + due - clock.now()) -> begin + due - clock.now()": _NEGATIVE_SLEEP,
                "line 9: max(0.0, begin + due - clock.now()) -> max(-1.0, begin + due - clock.now())": _NEGATIVE_SLEEP,
            },
        ),
        b02.BUILD,
    ),
)
