"""A scripted engine on the virtual clock that counts what it is asked and what is cut short."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from decimal import Decimal

from labkit.request import Chunk, Completion, Done, EngineError, Event, Request, Timing, TokenLogprob, Usage, clock


@dataclass
class Scripted:
    """Says `pieces`, one every `gap` seconds after `delay` seconds; `error` comes in place of piece `fail_at`.

    `probability` is what it gives each of its tokens; the second likeliest gets half of what is left.
    """

    pieces: tuple[str, ...] = ("a", "b")
    delay: float = 0.0
    gap: float = 1.0
    probability: float = 0.9
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: EngineError("the engine fell over", status=500))
    finish_reason: str = "stop"
    cost: Decimal | None = None
    asked: list[Request] = field(default_factory=list)
    finished: int = 0
    closed: int = 0

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        return self._stream(request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        sent, times = clock.now(), []
        try:
            await asyncio.sleep(self.delay)
            for i, piece in enumerate(self.pieces):
                await asyncio.sleep(self.gap)
                if self.fail_at == i:
                    raise self.error
                times.append(clock.now())
                yield Chunk(piece, clock.now(), logprobs=self._logprobs(piece, request), usage=Usage(10, i + 1))
            self.finished += 1
            timing = Timing(sent, times[0], times[-1], clock.now(), clock.unix_now())
            yield Done(Usage(10, len(times)), timing, self.finish_reason, request.model, ("engine",), self.cost)
        finally:
            self.closed += 1

    def _logprobs(self, piece: str, request: Request) -> tuple[TokenLogprob, ...]:
        if request.logprobs is None:
            return ()
        first, second = math.log(self.probability), math.log((1 - self.probability) / 2)
        return (TokenLogprob(piece, first, ((piece, first), ("?", second))[: request.logprobs]),)


def answered(text: str, *logprobs: TokenLogprob, finish_reason: str = "stop") -> Completion:
    """A whole answer that nobody had to stream."""
    chunks = (Chunk(text, 0.0, logprobs=logprobs),)
    return Completion(text, "", chunks, Done(Usage(1, 1), Timing(0.0), finish_reason))
