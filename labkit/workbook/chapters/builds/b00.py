"""The long build of chapter 00: a meter that reads a stream as it passes and books what it was."""
# ruff: noqa: ARG001 - near misses keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from labkit.request import Chunk, Done, Event, Handler, Lever, Message, Request, Timing, Usage, clock, stack
from labkit.workbook.exercise import Exercise, Outcome, Stage, call, equals, holds, same

Meters = Callable[[], Any]
Script = Sequence[tuple[float, Any]]
"""What an engine does: after so many seconds, this event or error."""

KEYS = ("feature", "status", "ttft", "e2e", "tpot", "itl", "tokens", "source")


@dataclass(frozen=True)
class Meter(Lever):
    """Lets every stream pass unchanged, and adds one row to `rows` for each, however it ends."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def over(self, inner: Handler) -> Handler:
        """`inner`, metered."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent = clock.now()
            done, status = None, "left"
            arrived, usage, source = [], Usage(), "chunks"
            try:
                async with aclosing(inner(request)) as events:
                    async for event in events:
                        if isinstance(event, Done):
                            done = event
                            continue
                        arrived += [event.at] if event.has_content else []
                        usage = event.usage or usage + event.counted
                        source = "running" if event.usage else source
                        yield event
                status = done.finish_reason if done else "broke"
                if done and not done.usage_note:
                    usage, source = done.usage, "reported"
            except Exception:
                status = "broke"
                raise
            finally:
                timing = Timing(sent, next(iter(arrived), None), done=clock.now())
                tokens: dict[str, int | None] = {**usage.by_kind()}
                if source == "chunks":
                    tokens |= dict.fromkeys(("fresh_input", "cached_input", "cache_write"))
                self.rows.append(
                    {
                        "feature": request.feature,
                        "status": status,
                        "ttft": timing.ttft,
                        "e2e": timing.e2e,
                        "tpot": timing.tpot(usage.output_tokens),
                        "itl": [later - earlier for earlier, later in pairwise(arrived)],
                        "tokens": tokens,
                        "source": source,
                    }
                )
            if done:
                yield done

        return handle


def _play(script: Script, closed: list[float], heard: list[Request]) -> Handler:
    """An engine that follows the script; `closed` gets the time at which its stream ended, `heard` the request."""

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        heard.append(request)
        try:
            for wait, event in script:
                await asyncio.sleep(wait)
                if isinstance(event, Exception):
                    raise event
                # A chunk's own `at` says how long before it is handed on it arrived.
                yield replace(event, at=clock.now() - event.at) if isinstance(event, Chunk) else event
        finally:
            closed.append(clock.now())

    return handle


_ASKED = Request((Message("user", "hello"),), feature="support-chat", max_tokens=64)


def _done(usage: Usage, finish_reason: str = "stop", note: str = "") -> Done:
    return Done(usage, Timing(0.0), finish_reason, usage_note=note)


def _text(text: str, tokens: int = 1, **more: Any) -> Chunk:
    return Chunk(text, 0.0, tokens, **more)


@dataclass
class _Seen:
    """What a reader got from a metered stream, and what was in the rows when."""

    events: list[Event] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    rows_at_done: int = 0
    error: BaseException | None = None
    closed: list[float] = field(default_factory=list)
    heard: list[Request] = field(default_factory=list)


def _read(answer: Meters, script: Script, stop: int | None = None) -> tuple[Any, _Seen]:
    """The meter, and what a reader saw.

    A reader with `stop` leaves after so many events, half a second after it got the last of them.
    """
    seen = _Seen()
    closed: list[float] = []
    meter = call(answer)

    async def main() -> None:
        await asyncio.sleep(3)
        stream = stack(meter, engine=_play(script, closed, seen.heard))(_ASKED)
        try:
            async for event in stream:
                seen.events.append(event)
                seen.at.append(clock.now())
                seen.rows_at_done = len(meter.rows) if isinstance(event, Done) else 0
                if len(seen.events) == stop:
                    await asyncio.sleep(0.5)
                    break
        except Exception as error:  # noqa: BLE001 - the engine's own, or the meter's: both are looked at
            seen.error = error
        await stream.aclose()
        seen.closed = list(closed)  # at this very moment: the garbage collector may close what was forgotten, later

    clock.run_virtual(main())
    return meter, seen


def _rows(meter: Any, given: str, *expected: dict[str, Any]) -> Iterator[Outcome]:
    """Whether the meter holds these rows, entry by entry; an expected row names the entries that are looked at."""
    yield equals(f"rows for {given}", len(meter.rows), len(expected))
    for row, right in zip(meter.rows, expected, strict=False):
        missing = [key for key in right if key not in row]
        yield holds("the row has its entries", not missing, given=given, expected=KEYS, actual=f"without {missing}")
        for key, value in right.items():
            ok = same(value, row.get(key), rel=1e-9, abs_=1e-9)
            yield holds(f"row['{key}']", ok, given=given, expected=value, actual=row.get(key), why=_WHY.get(key, ""))


_WHY = {
    "ttft": "From the request to the first chunk with content (`has_content`); None where none came.",
    "e2e": "From the request to the end, on `clock.now()`, whoever ended it.",
    "tpot": "(E2E − TTFT) / (output tokens − 1), None below two tokens: `Timing(...).tpot(n)` does it.",
    "itl": "The pauses between chunks with content, by their own `at`: it says when a chunk arrived.",
    "status": "The finish reason of a whole answer, 'left' when the reader went, 'broke' when the engine failed.",
}


def _drawn(rng: random.Random) -> list[tuple[float, Chunk]]:
    """A few chunks with text, some of several tokens, one after the other."""
    return [(rng.uniform(0.01, 1), _text(f"w{i} ", rng.randrange(1, 4))) for i in range(rng.randrange(2, 7))]


def _whole(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    for reason in ("stop", "length"):
        parts, last = _drawn(rng), rng.uniform(0.01, 1)
        n = rng.randrange(7, 30)
        script = [(0.25, _text("", 0)), *parts, (0.125, _text("", 0)), (last, _done(Usage(40, n), reason))]
        meter, seen = _read(answer, script)
        given = "an answer that begins and ends with an empty chunk"
        yield holds("no error", seen.error is None, given=given, actual=repr(seen.error))
        times = [3 + t for t in accumulate(wait for wait, _ in script)]
        sent_on = [replace(e, at=t) if isinstance(e, Chunk) else e for (_, e), t in zip(script, times, strict=True)]
        yield equals("what the reader gets is what the engine sent, all of it", seen.events, sent_on)
        yield equals("it gets each piece when it comes", seen.at, times, abs=1e-9)
        yield equals("the request reaches the engine as it is", seen.heard, [_ASKED])
        first, end = times[1] - 3, times[-1] - 3
        yield from _rows(
            meter,
            given,
            {
                "feature": "support-chat",
                "status": reason,
                "ttft": first,
                "e2e": end,
                "tpot": (end - first) / (n - 1),
                "itl": [wait for wait, _ in parts[1:]],
            },
        )
    meter, _ = _read(answer, [(0.5, replace(_text("a"), at=0.25)), (1.0, _text("b")), (0.5, _done(Usage(4, 2)))])
    given = "a first chunk that had arrived a quarter of a second before it was handed on"
    yield from _rows(meter, given, {"ttft": 0.25, "itl": [1.25], "e2e": 2.0})
    meter, _ = _read(answer, [(0.5, _text("yes")), (0.25, _done(Usage(9, 1)))])
    yield from _rows(meter, "an answer of one token", {"tpot": None, "itl": [], "ttft": 0.5})


def _kinds(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(4):
        fresh, cached, write, visible, hidden = (rng.randrange(1, 500) for _ in range(5))
        usage = Usage(fresh + cached + write, visible + hidden, cached, write, hidden)
        meter, _ = _read(answer, [(0.5, _text("yes", 900)), (0.25, _done(usage))])
        names = ("fresh_input", "cached_input", "cache_write", "visible_output", "reasoning")
        tokens = dict(zip(names, (fresh, cached, write, visible, hidden), strict=True))
        yield from _rows(meter, f"{usage}", {"tokens": tokens, "source": "reported"})
    script = [
        (0.5, _text("", 6, reasoning="let me see")),
        (0.5, _text("yes", 3)),
        (0.5, _done(Usage(), "stop", "no usage in the stream")),
    ]
    meter, seen = _read(answer, script)
    given = "a whole answer whose engine reported no usage (`done.usage_note` says so): 6 tokens of reasoning, 3 of text"
    unknown = dict.fromkeys(("fresh_input", "cached_input", "cache_write"))
    yield from _rows(meter, given, {"tokens": {**unknown, "visible_output": 3, "reasoning": 6}, "source": "chunks"})
    yield from _rows(meter, given, {"status": "stop", "tpot": 1.0 / 8, "ttft": 0.5})
    yield holds("the Done is handed on", bool(seen.events) and isinstance(seen.events[-1], Done), given=given)


def _leaves(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    for stop in (1, 2):
        script = [*((1.0, _text("w ", 2)) for _ in range(8)), (1.0, _done(Usage(40, 16)))]
        meter, seen = _read(answer, script, stop)
        given = f"a reader who closes the stream half a second after {stop} of 8 chunks, of 2 tokens each"
        yield holds(
            "the engine's stream ends when the reader leaves",
            seen.closed == [stop + 3.5],
            given=given,
            expected=f"closed at second {stop + 3.5}",
            actual=f"closed at {seen.closed}",
            why="Hold the inner stream in `async with aclosing(...)`; otherwise the engine writes on, and bills.",
        )
        yield from _rows(
            meter,
            given,
            {
                "status": "left",
                "ttft": 1.0,
                "e2e": stop + 0.5,
                "itl": [1.0] * (stop - 1),
                "source": "chunks",
                "tokens": {
                    "fresh_input": None,
                    "cached_input": None,
                    "cache_write": None,
                    "visible_output": 2 * stop,
                    "reasoning": 0,
                },
            },
        )
    meter = call(answer)
    closed: list[float] = []

    async def cancelled() -> bool:
        stream = stack(meter, engine=_play([(5.0, _text("late")), (1.0, _done(Usage(4, 1)))], closed, []))(_ASKED)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    given = "a reader whose task is cancelled after 2 seconds, before the first chunk"
    yield holds("the cancellation goes on to the reader", clock.run_virtual(cancelled()), given=given)
    yield equals(f"the engine's stream is closed, given {given}", closed, [2.0])
    yield from _rows(meter, given, {"status": "left", "ttft": None, "e2e": 2.0, "itl": [], "tpot": None})


def _breaks(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    for n in (0, 3):
        failed = ConnectionError("the engine went away")
        meter, seen = _read(answer, [*((1.0, _text("w ")) for _ in range(n)), (0.5, failed)])
        given = f"an engine that fails half a second after {n} chunks"
        yield holds(
            "the reader gets the engine's own error",
            seen.error is failed,
            given=given,
            expected=repr(failed),
            actual=repr(seen.error),
            why="Book it and `raise`: a stream that just ends looks like a whole answer.",
        )
        yield from _rows(meter, given, {"status": "broke", "e2e": n + 0.5, "ttft": 1.0 if n else None, "source": "chunks"})
    meter, seen = _read(answer, [(1.0, _text("w ")), (1.0, _text("w "))])
    given = "a stream that ends without a Done"
    yield from _rows(meter, given, {"status": "broke", "e2e": 2.0})
    yield equals(f"events handed on, given {given}", len(seen.events), 2)
    yield holds("no error of the meter's own", seen.error is None, given=given, actual=repr(seen.error))


def _running(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    cached, total = rng.randrange(1, 50), rng.randrange(60, 90)
    counts = [
        (1.0, _text("a ", 2, usage=Usage(total, 2, cached))),
        (1.0, _text("b ", 3, usage=Usage(total, 5, cached))),
        (1.0, _text("c ", 4)),
        (1.0, _text("d ", 5)),
        (1.0, _done(Usage(total, 14, cached, 3))),
    ]
    for stop, written in ((1, 2), (2, 5), (3, 9)):
        meter, _ = _read(answer, counts, stop)
        tokens = {
            "fresh_input": total - cached,
            "cached_input": cached,
            "cache_write": 0,
            "visible_output": written,
            "reasoning": 0,
        }
        given = f"an engine that reports a running total with its first two chunks, and a reader who leaves after {stop}"
        yield from _rows(meter, given, {"tokens": tokens, "source": "running", "status": "left"})
    meter, _ = _read(answer, counts)
    right = {
        "fresh_input": total - cached - 3,
        "cached_input": cached,
        "cache_write": 3,
        "visible_output": 14,
        "reasoning": 0,
    }
    yield from _rows(meter, "the same answer, read to its end", {"tokens": right, "source": "reported"})


def _order(answer: Meters, rng: random.Random) -> Iterator[Outcome]:
    meter, seen = _read(answer, [(1.0, _text("yes")), (1.0, _done(Usage(4, 1)))])
    yield equals(
        "rows in the book when the reader gets the Done",
        seen.rows_at_done,
        1,
        why="Book first, then hand the Done on: whoever has seen a Done can count on its row.",
    )
    meter = call(answer)
    pace = {"slow": 2.0, "fast": 0.5}

    async def engine(request: Request) -> AsyncGenerator[Event, None]:
        for _ in range(3):
            await asyncio.sleep(pace[request.feature])
            yield Chunk("w ", clock.now())
        yield _done(Usage(10, 3))

    async def both() -> None:
        handler = stack(meter, engine=engine)

        async def read(feature: str) -> None:
            async for _ in handler(replace(_ASKED, feature=feature)):
                pass

        await asyncio.gather(*(read(name) for name in pace))

    clock.run_virtual(both())
    yield from _rows(
        meter,
        "two answers at the same time, through one meter",
        {"feature": "fast", "ttft": 0.5, "e2e": 1.5, "itl": [0.5, 0.5]},
        {"feature": "slow", "ttft": 2.0, "e2e": 6.0, "itl": [2.0, 2.0]},
    )
    yield equals("a second meter starts with no rows", len(call(answer).rows), 0)


def _spoilt(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Meters:
    """Near miss: a meter whose rows pass through `change`, which may drop one."""

    class Rows(list[dict[str, Any]]):
        def append(self, row: dict[str, Any]) -> None:
            changed = change(row)
            if changed is not None:
                super().append(changed)

    return lambda: Meter(Rows())


def _zero(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "tokens": {kind: n or 0 for kind, n in row["tokens"].items()}}


def _whole_only(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["status"] not in ("left", "broke") else None


@dataclass(frozen=True)
class _Leaky(Lever):
    """Near miss: the inner stream is not closed when the reader leaves."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def over(self, inner: Handler) -> Handler:
        kept: list[Any] = []

        async def hold(request: Request) -> AsyncGenerator[Event, None]:
            stream = inner(request)
            kept.append(stream)
            async for event in stream:
                yield event

        return Meter(self.rows).over(hold)


@dataclass(frozen=True)
class _Swallows(Lever):
    """Near miss: the engine's error ends the stream without a word."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def over(self, inner: Handler) -> Handler:
        metered = Meter(self.rows).over(inner)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            try:
                async with aclosing(metered(request)) as events:
                    async for event in events:
                        yield event
            except ConnectionError:
                return

        return handle


BUILD = Exercise(
    id="00.4",
    title="Build: a meter for every stream",
    minutes=30,
    difficulty=3,
    answer="Meter",
    stages=(
        Stage("a whole answer: its times", _whole),
        Stage("tokens by kind, also where the engine did not count", _kinds),
        Stage("the reader leaves", _leaves),
        Stage("the stream breaks", _breaks),
        Stage("running totals", _running),
        Stage("booked before the Done, and two at once", _order),
    ),
    reference=Meter,
    hints=(
        "Start from `Shout`: the same loop that hands events on. Note `clock.now()` before it, collect each chunk's `at` "
        "in it, and append the row after it.",
        "Whatever ends a stream passes through `finally`: a reader who leaves raises GeneratorExit at your `yield`, a "
        "cancelled one CancelledError; neither is an `Exception`. So begin with status 'left', set 'broke' in "
        "`except Exception: … raise`, and the finish reason after the loop.",
        "Tokens: start from `Usage()`. For each chunk take `event.usage` if it has one (a running total), else add "
        "`event.counted`. A Done without a `usage_note` overrules both. Where nobody reported, the input kinds are None.",
        "To book before the Done is handed on, keep it in a variable inside the loop, and yield it after the row is in.",
    ),
    wrong=(
        _spoilt(_zero),
        _spoilt(_whole_only),
        _spoilt(lambda row: {**row, "itl": row["itl"] and [row["ttft"], *row["itl"]]}),
        _spoilt(lambda row: {**row, "source": "reported"}),
        _Leaky,
        _Swallows,
    ),
    equivalent={
        "line 19: continue -> break": "a Done is the last event of its stream",
        "line 33: source == 'chunks' -> source <= 'chunks'": "the other two words come later in the alphabet",
    },
)
