"""Between an engine and a slow reader: a queue that cannot grow without bound.

A reader on a bad line takes chunks more slowly than an engine makes them. Waiting for it holds the engine's stream back
(vLLM itself goes on and buffers in its server, so the memory is only elsewhere); merging lets the engine finish at its own
speed, and the reader gets the same text in fewer, larger chunks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from labkit.request import Chunk, EngineError, Event, Handler, InvalidRequest, Request, Usage

Policy = Literal["wait", "merge"]


def paced(inner: Handler, limit: int, policy: Policy = "wait") -> Handler:
    """Read `inner` up to `limit` events ahead of the reader.

    When the queue is full, "wait" leaves `inner` alone until the reader has taken one, and "merge" joins the next chunk to
    the last that waits: then `inner` never waits, and nothing but the text grows. A `Done` is never merged and always
    finds a place. An error of `inner` comes after what was queued before it. Raises `InvalidRequest` for a `limit` below
    1 or an unknown policy.
    """
    if limit < 1:
        raise InvalidRequest(f"limit is {limit}; a queue holds at least 1 event")
    if policy not in ("wait", "merge"):
        raise InvalidRequest(f"policy {policy!r} is unknown; use 'wait' or 'merge'")

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        queue = _Queue(limit, policy)
        pump = asyncio.create_task(_pump(inner, request, queue))
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            pump.cancel()
            await asyncio.wait({pump})

    return handle


async def _pump(inner: Handler, request: Request, queue: _Queue) -> None:
    try:
        async with aclosing(inner(request)) as events:
            async for event in events:
                await queue.put(event)
    except asyncio.CancelledError:
        queue.error = EngineError("the stream was cancelled by somebody who does not read it; ask again")
        raise
    except Exception as error:  # noqa: BLE001 - it is raised in the reader
        queue.error = error
    finally:
        queue.close()


@dataclass(slots=True)
class _Queue:
    limit: int
    policy: Policy
    events: deque[Event] = field(default_factory=deque)
    closed: bool = False
    error: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if (
            self.policy == "merge"
            and isinstance(event, Chunk)
            and isinstance(last, Chunk)
            and len(self.events) >= self.limit
        ):
            self.events[-1] = merged(last, event)
            return
        self.events.append(event)
        self.news.set()
        while self.policy == "wait" and len(self.events) >= self.limit:
            self.room.clear()
            await self.room.wait()

    async def get(self) -> Event | None:
        while not self.events:
            if self.error is not None:
                raise self.error
            if self.closed:
                return None
            self.news.clear()
            await self.news.wait()
        self.room.set()
        return self.events.popleft()

    def close(self) -> None:
        self.closed = True
        self.news.set()


def merged(first: Chunk, then: Chunk) -> Chunk:
    """Two chunks in a row as one: all their text and tokens, at the time when both were there.

    The running usage is the later one; where only the first had one, the second's tokens are added to it.
    """
    usage = then.usage
    if usage is None and first.usage is not None:
        usage = first.usage + Usage(output_tokens=then.tokens)
    return Chunk(
        first.text + then.text,
        then.at,
        first.tokens + then.tokens,
        first.reasoning + then.reasoning,
        first.logprobs + then.logprobs,
        usage,
    )
