"""A scripted engine on the virtual clock that counts what it is asked and what is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from labkit.request import Chunk, Done, Event, Request, Timing, Usage, clock


@dataclass
class Scripted:
    """Answers with `pieces`, one every `gap` seconds, and numbers its answers."""

    pieces: tuple[str, ...] = ("a", "b", "c")
    gap: float = 1.0
    finish_reason: str = "stop"
    fail_after: int | None = None
    without_done: bool = False
    running_usage: bool = True
    started: int = 0
    finished: int = 0
    closed: int = 0

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        return self._stream(request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.started += 1
        number = self.started
        sent, times = clock.now(), []
        try:
            for i, piece in enumerate(self.pieces):
                await asyncio.sleep(self.gap)
                if self.fail_after == i:
                    raise ConnectionError("the engine fell over")
                times.append(clock.now())
                usage = Usage(10, i + 1) if self.running_usage else None
                yield Chunk(f"{piece}{number}", clock.now(), usage=usage)
            if self.without_done:
                return
            self.finished += 1
            timing = Timing(sent, times[0], times[-1], clock.now(), clock.unix_now())
            usage = Usage(10, len(self.pieces), cached_tokens=4)
            yield Done(usage, timing, self.finish_reason, request.model, ("engine",), response_id=f"id-{number}")
        finally:
            self.closed += 1
