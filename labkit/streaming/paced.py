"""A queue between an engine and a slow reader, with a bound on its length.

A reader on a slow connection takes chunks more slowly than an engine makes them. The queue can then wait, which holds back
the engine's stream (vLLM itself goes on and buffers in its server, so the memory is only used elsewhere). Or it can merge
chunks: the engine finishes at its own speed, and the reader gets the same text in fewer, larger chunks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from typing import Literal

from labkit.request import Chunk, EngineError, Event, Handler, InvalidValue, Lever, Request

WhenFull = Literal["wait", "merge"]


@dataclass(frozen=True)
class Paced(Lever):
    """Read up to `limit` events ahead of the reader.

    `when_full` says what happens when the queue is full. "wait" reads no more of the engine's stream until the reader has
    taken an event. "merge" joins the next chunk to the last one in the queue, so the engine never waits, and only the text
    in the queue grows. A `Done` is never merged and is always accepted. An error is raised after the events queued before it
    are read. Raises `InvalidValue` for a `limit` below 1 and another `when_full`.
    """

    limit: int
    when_full: WhenFull = "wait"

    def __post_init__(self) -> None:
        if not isinstance(self.limit, int) or isinstance(self.limit, bool) or self.limit < 1:
            raise InvalidValue(f"limit is {self.limit!r}; a queue holds 1 event or more, a whole number")
        if self.when_full not in ("wait", "merge"):
            raise InvalidValue(f"when_full is {self.when_full!r}; use 'wait' or 'merge'")

    def over(self, inner: Handler) -> Handler:
        """`inner`, read ahead of its reader; each stream has a queue of its own."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            queue = _Queue(self.limit, self.when_full)
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
    except Exception as error:  # noqa: BLE001 - it is raised where the reader waits
        queue.error = error
    finally:
        queue.close()


@dataclass(slots=True)
class _Queue:
    limit: int
    when_full: WhenFull
    events: deque[Event] = field(default_factory=deque)
    closed: bool = False
    error: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if (
            self.when_full == "merge"
            and isinstance(event, Chunk)
            and isinstance(last, Chunk)
            and len(self.events) >= self.limit
        ):
            self.events[-1] = merged(last, event)
            return
        self.events.append(event)
        self.news.set()
        while self.when_full == "wait" and len(self.events) >= self.limit:
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
    """Two chunks in a row as one, with all their text and tokens, at the time of the second.

    The running usage is that of the second; where only the first has one, the second's tokens are added to it.
    """
    usage = then.usage
    if usage is None and first.usage is not None:
        usage = first.usage + then.counted
    added = {f.name: getattr(first, f.name) + getattr(then, f.name) for f in fields(Chunk) if f.name not in ("at", "usage")}
    return Chunk(**added, at=then.at, usage=usage)
