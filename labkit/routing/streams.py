"""What the levers of this room do to streams: hold one back until it begins, and tell time from where the caller stood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from labkit.request import Chunk, Completion, Done, EngineStalled, Event, Handler, Request, StreamIncomplete, clock


async def opened(inner: Handler, request: Request, first_token_s: float) -> AsyncGenerator[Event, None]:
    """`inner`'s stream, held back until its first token (or its `Done`) is there, which must be within `first_token_s`.

    Raises `EngineStalled` where it is not, and `StreamIncomplete` where the stream ends without a `Done`.
    """
    held: list[Event] = []
    begun = ended = False
    async with aclosing(inner(request)) as events:
        try:
            async with asyncio.timeout(first_token_s) as limit:
                async for event in events:
                    held.append(event)
                    begun, ended = is_token(event), isinstance(event, Done)
                    if begun or ended:
                        break
        except TimeoutError as error:
            if not limit.expired():  # somebody else's, such as a deadline's
                raise
            raise EngineStalled(f"no token within {first_token_s:.3g} s") from error
        for event in held:
            yield event
        async for event in events:
            ended = ended or isinstance(event, Done)
            yield event
    if not ended:
        raise StreamIncomplete("the stream ended without a Done; the answer is not whole")


def is_token(event: Event) -> bool:
    """Whether an event carries something of the answer; engines may open with chunks that are empty."""
    return isinstance(event, Chunk) and bool(event.text or event.reasoning)


def named(request: Request, model: str) -> Request:
    """`request` for the model of this name."""
    return replace(request, model=model)


def since(done: Done, sent: float, started_unix: float) -> Done:
    """`done` with its latencies counted from `sent` (`clock.now()`): the caller waited from there, whoever answered."""
    return replace(done, timing=replace(done.timing, sent=sent, started_unix=started_unix))


def released(completion: Completion, *, keep_logprobs: bool) -> list[Event]:
    """A held-back answer as events that happen now: its words reach the caller only here, whenever they were said."""
    now = clock.now()
    spoke = any(is_token(chunk) for chunk in completion.chunks)
    said = now if spoke else None
    chunks = [replace(chunk, at=now, logprobs=chunk.logprobs if keep_logprobs else ()) for chunk in completion.chunks]
    timing = replace(completion.done.timing, first_token=said, last_token=said, done=now)
    return [*chunks, replace(completion.done, timing=timing)]
