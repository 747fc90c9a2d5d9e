"""A scripted engine on the virtual clock that counts what it is asked and what is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import pairwise

from labkit.request import Chunk, Done, Event, Request, Timing, Usage, clock


@dataclass
class Scripted:
    """Answers with `pieces`, one every `gap` seconds."""

    pieces: tuple[str, ...] = ("a ", "b ", "c ")
    gap: float = 1.0
    fail_after: int | None = None
    running_usage: bool = True
    started: int = 0
    finished: int = 0
    closed: int = 0
    closed_at: float | None = None
    produced: int = 0

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        return self._stream(request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.started += 1
        sent, times = clock.now(), []
        try:
            for i, piece in enumerate(self.pieces):
                await asyncio.sleep(self.gap)
                if self.fail_after == i:
                    raise ConnectionError("the engine fell over")
                times.append(clock.now())
                self.produced += 1
                yield Chunk(piece, clock.now(), usage=Usage(10, i + 1) if self.running_usage else None)
            self.finished += 1
            timing = Timing(sent, times[0], times[-1], clock.now(), clock.unix_now())
            yield Done(Usage(10, len(self.pieces)), timing, "stop", request.model, ("engine",))
        finally:
            self.closed += 1
            self.closed_at = clock.now()


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 10_000))


def cut(text: str, marks: list[int]) -> list[str]:
    """`text` cut at `marks`, taken modulo its length."""
    places = sorted({0, len(text), *(mark % (len(text) + 1) for mark in marks)})
    return [text[a:b] for a, b in pairwise(places)]
