"""An engine that streams a script at set times: for tests of levers and of services built on them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field

from labkit.request import Chunk, Done, EngineError, Event, Request, Timing, TokenLogprob, Usage, clock, held


@dataclass(eq=False)
class ScriptedEngine:
    """Answers with `pieces`, one token each, and keeps count of what became of its answers.

    `pieces` are the tokens of every answer, or a function from a request to the tokens of its answer; a request gets at most
    its `max_tokens` of them. The first comes `delay_s` + `gap_s` seconds after the request, the others `gap_s` apart, on the
    virtual clock as on the wall clock. In place of piece `fail_at` (from 0) it raises `error`; with `without_done` its
    stream ends without a `Done`. It reports `input_tokens` tokens read, of which `cached_tokens` come from a cache, and
    sends a running count with each chunk unless `running_usage` is False. Where log-probabilities are asked for, each token
    has the probability `probability`, and the second likeliest token, "?", has half of the rest.

    `asked` are the requests it got. `finished` counts the answers that reached their `Done`, `closed` those that ended in
    any way. `used` is the sum of the tokens that it reported: in the `Done`, or in the chunks of an answer that was cut
    short.
    """

    pieces: tuple[str, ...] | Callable[[Request], Iterable[str]] = ("a ", "b ", "c ")
    gap_s: float = 1.0
    delay_s: float = 0.0
    fail_at: int | None = None
    error: Exception = field(default_factory=lambda: EngineError("the engine fell over", status=500))
    without_done: bool = False
    running_usage: bool = True
    input_tokens: int = 10
    cached_tokens: int = 0
    probability: float = 0.9
    finish_reason: str = "stop"
    model: str = "scripted"
    asked: list[Request] = field(default_factory=list)
    finished: int = 0
    closed: int = 0
    used: Usage = field(default_factory=Usage)

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The stream of events that answers `request`."""
        return held(self._stream, request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        number = len(self.asked)
        sent, unix, times = clock.now(), clock.unix_now(), []
        said = tuple(self.pieces(request) if callable(self.pieces) else self.pieces)[: request.max_tokens]
        usage = Usage(self.input_tokens, 0, self.cached_tokens)
        told = Usage()
        try:
            await asyncio.sleep(self.delay_s)
            for i, piece in enumerate(said):
                await asyncio.sleep(self.gap_s)
                if self.fail_at == i:
                    raise self.error
                times.append(clock.now())
                usage = Usage(self.input_tokens, i + 1, self.cached_tokens)
                running = usage if self.running_usage else None
                told = running or Usage(output_tokens=i + 1)
                yield Chunk(piece, clock.now(), logprobs=self._logprobs(piece, request), usage=running)
            if self.without_done:
                return
            told = usage
            self.finished += 1
            first, last = (times[0], times[-1]) if times else (None, None)
            timing = Timing(sent, first, last, clock.now(), unix)
            model = request.model or self.model
            yield Done(usage, timing, self.finish_reason, model, response_id=f"{self.model}-{id(self)}-{number}")
        finally:
            self.closed += 1
            self.used = self.used + told

    def _logprobs(self, piece: str, request: Request) -> tuple[TokenLogprob, ...]:
        if request.logprobs is None:
            return ()
        first, second = math.log(self.probability), math.log((1 - self.probability) / 2)
        return (TokenLogprob(piece, first, ((piece, first), ("?", second))[: request.logprobs]),)
