"""An engine whose whole answer is known: it stops at a limit, at a stop text, and goes on from what was said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from labkit.request import Chunk, Done, EngineError, Event, Request, Timing, Usage, clock


class Writer:
    """Writes `tokens`, as far as the request's limit, or goes on behind what the request says that it wrote.

    The requests number `fails` (from 1) break: before their first token, or behind `after` of them. A prompt has one token a
    message and one for each token that the model is said to have written.
    """

    def __init__(self, tokens: Sequence[str], fails: frozenset[int] = frozenset(), after: int = 0) -> None:
        self.tokens = tuple(tokens)
        self.fails = fails
        self.after = after
        self.model = "writer"
        self.asked: list[Request] = []
        self.told: list[Usage] = []

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        number, sent = len(self.asked), clock.now()
        left = list(self.tokens)
        read = len(request.messages)
        if request.extra.get("continue_final_message"):
            said = request.messages[-1].content
            while said:
                assert left, f"{said!r} is more than was written"
                assert said.startswith(left[0]), f"it never wrote {said!r}; it goes on with {left[0]!r}"
                said = said.removeprefix(left.pop(0))
                read += 1
        written, reason, at = 0, "stop", None
        for token in left:
            if number in self.fails and written == self.after:
                break
            if written == request.max_tokens:
                reason = "length"
                break
            at = at or clock.now()
            written += 1
            if token in request.stop:
                break
            yield Chunk(token, clock.now(), usage=Usage(read, written))
        self.told.append(Usage(read, written))
        if number in self.fails:
            raise EngineError("the engine fell over", status=500)
        yield Done(Usage(read, written), Timing(sent, at, at, clock.now(), clock.unix_now()), reason, "writer")
