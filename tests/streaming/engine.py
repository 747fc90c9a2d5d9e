"""What the tests of this room share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

from labkit.engines import ScriptedEngine
from labkit.request import Chunk, Event, Request, clock


@dataclass(eq=False)
class WatchedEngine(ScriptedEngine):
    """A scripted engine that also notes how many chunks were taken from it, and when its last stream was closed."""

    produced: int = 0
    closed_at: float | None = None

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(super().__call__(request)) as events:
                async for event in events:
                    self.produced += isinstance(event, Chunk)
                    yield event
        finally:
            self.closed_at = clock.now()


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 10_000))


def cut(text: str, marks: list[int]) -> list[str]:
    """`text` cut at `marks`, taken modulo its length."""
    places = sorted({0, len(text), *(mark % (len(text) + 1) for mark in marks)})
    return [text[a:b] for a, b in pairwise(places)]
