"""What the streaming levers cost, as ratios to the bare stream that runs in the same minute.

    python -m benchmarks.streaming [--streams 32] [--chunks 200] [--turns 7] [--live] [--json FILE]

1. Scripted: 32 streams at once from an engine that never waits, so that all time is spent on the streams themselves.
   Processor time per chunk, as a multiple of the bare stream's; "added" is the difference in microseconds. Through
   `Resumable` and Server-Sent Events, a chunk becomes JSON, then bytes, and a chunk again on the reader's side.
2. Paced: the same streams with a chunk every 10 ms, about as fast as an engine makes them. Wall time until all are read, as
   a multiple of the bare streams' time.
3. With --live: the small model on this machine, 32 concurrent answers of one length. Wall time and the wait for the first
   chunk, as multiples of the bare streams'.

Variants take turns, and each ratio is the median over the turns' own ratios, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from labkit.engines import connect
from labkit.load import ExactLengths
from labkit.request import Chunk, Done, Event, Handler, Message, Request, StreamIncomplete, Timing, Usage, clock
from labkit.streaming import (
    AnyOf,
    Condition,
    Decoder,
    EnoughWords,
    FirstUseful,
    JsonComplete,
    Paced,
    Repeating,
    Resumable,
    Said,
    StopWhen,
    to_event,
)

Read = Callable[[Handler, Request], Awaitable[float | None]]
"""Read one answer to its end; gives back the seconds to its first chunk."""
_WORDS = ("tent", "stove", "kayak", "boots", "rope", "helmet", "compass", "blanket", "jacket")


def scripted(chunks: int, gap: float) -> Handler:
    """An engine that streams `chunks` chunks of one word, one every `gap` seconds (0: as fast as the reader takes them)."""
    rng = random.Random(6)
    words = [f"{rng.choice(_WORDS)} " for _ in range(chunks)]

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent = clock.now()
        for i, word in enumerate(words):
            await asyncio.sleep(gap)
            yield Chunk(word, clock.now(), usage=Usage(60, i + 1))
        yield Done(Usage(60, chunks), Timing(sent, sent, clock.now(), clock.now()), model=request.model)

    return handle


async def plainly(handler: Handler, request: Request) -> float | None:
    """Take the events as they come. Raises `StreamIncomplete` when the last one is no `Done`."""
    started, first, done = time.perf_counter(), None, False
    async with aclosing(handler(request)) as events:
        async for event in events:
            first = time.perf_counter() - started if first is None else first
            done = isinstance(event, Done)
    if not done:
        raise StreamIncomplete("the stream ended without a Done")
    return first


async def finding_the_first_useful(handler: Handler, request: Request) -> float | None:
    """Take the events and look for the first useful sentence. None ever comes, which is the most expensive case."""
    finder = FirstUseful("prose")
    async with aclosing(handler(request)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                finder.feed(event.text)
    return None


async def over_a_line(handler: Handler, request: Request) -> float | None:
    """Read the answer through `Resumable`, as bytes of Server-Sent Events that are decoded into events again."""
    started, first, done = time.perf_counter(), None, False
    async with Resumable(handler) as buffer:
        decoder = Decoder()
        async with aclosing(buffer.sse(buffer.start(request))) as pieces:
            async for piece in pieces:
                for message in decoder.feed(piece):
                    first = time.perf_counter() - started if first is None else first
                    done = isinstance(to_event(message), Done)
    if not done:
        raise StreamIncomplete("the stream ended without a Done")
    return first


def overruled(condition: Condition) -> Condition:
    """Ask `condition` but never stop, because some answers of the live model do repeat themselves."""

    def asked(text: str) -> bool:
        condition(text)
        return False

    return asked


def variants() -> dict[str, tuple[Callable[[Handler], Handler], Read]]:
    """The levers by name, each with the function that reads its stream. No condition stops a stream: answers are whole."""
    never = EnoughWords(1_000_000)
    loops = overruled(Repeating())
    many = AnyOf(never, Said(r"NEVER"), loops, overruled(JsonComplete()))
    return {
        "bare": (lambda inner: inner, plainly),
        "StopWhen(EnoughWords)": (StopWhen(never), plainly),
        "StopWhen(Repeating)": (StopWhen(loops), plainly),
        "StopWhen(four conditions)": (StopWhen(many), plainly),
        "FirstUseful(prose)": (lambda inner: inner, finding_the_first_useful),
        "Paced, wait": (Paced(16, "wait"), plainly),
        "Paced, merge": (Paced(16, "merge"), plainly),
        "Resumable + SSE + Decoder": (lambda inner: inner, over_a_line),
    }


async def all_at_once(handler: Handler, read: Read, requests: list[Request]) -> tuple[float, float, list[float]]:
    """Wall and processor seconds until every answer is read, and the waits for the first chunks."""
    wall, busy = time.perf_counter(), time.process_time()
    firsts = await asyncio.gather(*(read(handler, request) for request in requests))
    return time.perf_counter() - wall, time.process_time() - busy, [first for first in firsts if first is not None]


async def compare(engine: Handler, requests: Callable[[], list[Request]], turns: int) -> dict[str, dict[str, float]]:
    """For every variant: median ratios to the bare streams of the same turn, and its median processor time in seconds."""
    measured: dict[str, list[tuple[float, float, float]]] = {}
    for turn in range(turns + 1):
        for name, (lever, read) in variants().items():
            wall, busy, firsts = await all_at_once(lever(engine), read, requests())
            if turn:  # the first one warms up
                measured.setdefault(name, []).append((wall, busy, statistics.median(firsts) if firsts else float("nan")))
    bare = measured["bare"]
    return {
        name: {
            "wall": statistics.median(w / b for (w, _, _), (b, _, _) in zip(rows, bare, strict=True)),
            "busy": statistics.median(p / b for (_, p, _), (_, b, _) in zip(rows, bare, strict=True)),
            "first": statistics.median(f / b for (_, _, f), (_, _, b) in zip(rows, bare, strict=True)),
            "busy_s": statistics.median(p for _, p, _ in rows),
        }
        for name, rows in measured.items()
    }


async def measure(streams: int, chunks: int, turns: int, live: bool) -> dict[str, float]:
    """Every figure by its name; all but those that name a unit are ratios."""
    asked = [Request((Message("user", "hi"),), model="scripted") for _ in range(streams)]
    out: dict[str, float] = {}
    flat_out = await compare(scripted(chunks, 0.0), lambda: asked, turns)
    per_chunk = 1e6 / (streams * chunks)
    for name, figures in flat_out.items():
        out[f"processor time / bare · {name}"] = figures["busy"]
        out[f"added, microseconds a chunk · {name}"] = (figures["busy_s"] - flat_out["bare"]["busy_s"]) * per_chunk
    even = await compare(scripted(chunks, 0.01), lambda: asked, max(2, turns // 3))
    out |= {f"wall, a chunk every 10 ms / bare · {name}": figures["wall"] for name, figures in even.items()}
    if live:
        async with await connect("vllm", model="small") as engine:
            make = ExactLengths(str(engine.tokenizer_path), 6)
            found = await compare(engine, lambda: [make(60, chunks) for _ in range(streams)], max(2, turns // 2))
        out |= {f"wall, live / bare · {name}": figures["wall"] for name, figures in found.items()}
        out |= {
            f"first chunk, live / bare · {name}": figures["first"]
            for name, figures in found.items()
            if figures["first"] == figures["first"]
        }
    return out


def main() -> None:
    """Print the figures, and write them as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--live", action="store_true", help="start the small model as well")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.streams, options.chunks, options.turns, options.live))
    for name, value in figures.items():
        print(f"{value:9.2f}  {name}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
