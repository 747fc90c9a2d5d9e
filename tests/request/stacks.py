"""One stack of levers over a scripted engine, for both clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.request import Chunk, Done, Event, Handler, Lever, Request, Timing, Usage, clock


@dataclass
class ScriptedEngine:
    """Sends `words` with `gap` seconds before each, and keeps a journal of what happened to it."""

    words: tuple[str, ...] = ("a", "b", "c", "d")
    gap: float = 0.05
    journal: list[str] = field(default_factory=list)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        self.journal.append("started")
        try:
            sent = clock.now()
            first = None
            for word in self.words:
                await asyncio.sleep(self.gap)
                first = clock.now() if first is None else first
                self.journal.append(f"sent {word}")
                yield Chunk(word, clock.now())
            yield Done(Usage(3, len(self.words)), Timing(sent, first, clock.now(), clock.now()), model="scripted")
            self.journal.append("finished")
        finally:
            self.journal.append("closed")


@dataclass(frozen=True)
class Shouting(Lever):
    """Says everything in capitals, and that it was there."""

    name: str = "shouting"

    def over(self, inner: Handler) -> Handler:
        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield replace(event, text=event.text.upper()) if isinstance(event, Chunk) else event.via(self.name)

        return handle
