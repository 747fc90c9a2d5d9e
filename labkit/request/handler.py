"""The handler protocol: a request in, a stream of events out.

A stream is any number of `Chunk` and then exactly one `Done`; `complete` folds it into one value. `labkit.request.lever`
puts levers around handlers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from labkit.request.errors import StreamIncomplete
from labkit.request.values import Chunk, Done, Event, Request, TokenLogprob, ToolCall, ToolCallDelta

Handler = Callable[[Request], AsyncGenerator[Event, None]]


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: the folded stream, with every chunk kept for its timestamp."""

    text: str
    reasoning: str
    chunks: tuple[Chunk, ...]
    done: Done

    @classmethod
    def of(cls, chunks: Iterable[Chunk], done: Done) -> Self:
        """The chunks of a whole stream and its `Done`, folded."""
        chunks = tuple(chunks)
        return cls("".join(c.text for c in chunks), "".join(c.reasoning for c in chunks), chunks, done)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the generated tokens in order; empty unless the request asked for them."""
        return tuple(lp for chunk in self.chunks for lp in chunk.logprobs)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the answer in the order of their indices, each with its pieces joined."""
        pieces: dict[int, list[ToolCallDelta]] = {}
        for chunk in self.chunks:
            for piece in chunk.tool_calls:
                pieces.setdefault(piece.index, []).append(piece)
        return tuple(
            ToolCall("".join(p.id for p in own), "".join(p.name for p in own), "".join(p.arguments for p in own))
            for _, own in sorted(pieces.items())
        )

    @property
    def inter_chunk_latencies(self) -> tuple[float, ...]:
        """Gaps between streamed chunks, s. Chunks, not tokens: an engine may send several tokens in one."""
        times = [chunk.at for chunk in self.chunks if chunk.has_content]
        return tuple(later - earlier for earlier, later in pairwise(times))

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, s; None for fewer than two tokens.

        Reasoning tokens that were billed but not streamed are not counted: the model wrote them before the first token came.
        """
        usage = self.done.usage
        hidden = usage.reasoning_tokens > 0 and not any(chunk.reasoning for chunk in self.chunks)
        return self.done.timing.tpot(usage.visible_output_tokens if hidden else usage.output_tokens)


class _AfterDone(StreamIncomplete):
    """Something came after the end of an answer."""


async def complete(handler: Handler, request: Request) -> Completion:
    """Run `request` to its end and fold the stream into one `Completion`.

    Raises `StreamIncomplete` when the stream ends without a `Done` or goes on after it, and whatever the handlers raise
    before the `Done`. An error after the `Done` becomes one of the answer's faults.
    """
    chunks: list[Chunk] = []
    done: Done | None = None
    try:
        async with aclosing(handler(request)) as events:
            async for event in events:
                if done is not None:
                    raise _AfterDone(f"a handler sent {type(event).__name__} after its Done; a stream ends with Done")
                if isinstance(event, Done):
                    done = event
                else:
                    chunks.append(event)
    except _AfterDone:
        raise
    except Exception as error:
        if done is None:
            raise
        done = done.beside("after the answer", error)  # the answer is whole, and paid for
    if done is None:
        raise StreamIncomplete(f"the stream ended after {len(chunks)} chunks without a Done; the answer is not whole")
    return Completion.of(chunks, done)
