"""What several levers do to a stream: hold it back until it begins, or write it down while it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from labkit.request import clock
from labkit.request.errors import EngineStalled, StreamIncomplete
from labkit.request.handler import Completion
from labkit.request.values import Chunk, Done, Event


async def opened(events: AsyncGenerator[Event, None], first_token_s: float) -> AsyncGenerator[Event, None]:
    """`events`, held back until the first token (or the `Done`) arrives, which must happen within `first_token_s` seconds.

    Raises `EngineStalled` where nothing arrives in time, and `StreamIncomplete` where the stream ends without a `Done`.
    """
    waiting: list[Event] = []
    begun = ended = False
    async with aclosing(events):
        try:
            async with asyncio.timeout(first_token_s) as limit:
                async for event in events:
                    waiting.append(event)
                    ended = isinstance(event, Done)
                    begun = ended or (isinstance(event, Chunk) and event.has_content)
                    if begun:
                        break
        except TimeoutError as error:
            if not limit.expired():  # another timeout, such as a deadline's
                raise
            raise EngineStalled(f"no token within {first_token_s:.3g} s") from error
        for event in waiting:
            yield event
        async for event in events:
            ended = ended or isinstance(event, Done)
            yield event
    if not ended:
        raise StreamIncomplete("the stream ended without a Done; the answer is not whole")


async def taken_down(events: AsyncGenerator[Event, None], keep: Callable[[Completion], Done]) -> AsyncGenerator[Event, None]:
    """`events`, with the whole answer given to `keep` just before its `Done`; `keep` returns the `Done` to hand on.

    So an answer is kept before its caller sees its end. A stream without a `Done` is not whole: `keep` is not called for it.
    """
    chunks: list[Chunk] = []
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Chunk):
                chunks.append(event)
                yield event
            else:
                yield keep(Completion.of(chunks, event))


def released(completion: Completion, *, keep_logprobs: bool = True) -> list[Event]:
    """The events of an answer that was held back, timed now, when its caller gets the words, whenever they were written."""
    now = clock.now()
    said = now if any(chunk.has_content for chunk in completion.chunks) else None
    chunks = [replace(chunk, at=now, logprobs=chunk.logprobs if keep_logprobs else ()) for chunk in completion.chunks]
    timing = replace(completion.done.timing, first_token=said, last_token=said, done=now)
    return [*chunks, replace(completion.done, timing=timing)]
