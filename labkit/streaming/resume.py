"""Answers that survive a broken connection: a reader that comes back gets exactly the events that it missed, once each.

The engine's stream belongs to a buffer here, not to the connection. Each event has an id that names its stream and its place
in the stream. A browser sends the last id that it saw as `Last-Event-ID` and reads on from there. When a stream has had no
reader for `grace_s` seconds, it is closed all the way to the engine, because an answer without a reader is still billed by
the token.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from labkit.request import EngineError, Event, Handler, InvalidRequest, InvalidValue, LabError, Request, held, metered
from labkit.streaming.sse import encode


class StreamGone(LabError, LookupError):
    """The stream is not here, or no longer: it had no reader for too long, or it is over; send the request again."""


class Resumable:
    """Streams of `inner` that outlive their readers' connections, by up to `grace_s` seconds without a reader.

    A stream begins with `start` and runs whether or not it is read. A stream that is over is also kept for `grace_s` after
    its last reader has left. Each stream holds its whole answer in memory, so `max_tokens` bounds its size. Use this in one
    event loop, by `async with`, or call `aclose`. Raises `InvalidValue` for a `grace_s` that is not above 0.
    """

    def __init__(self, inner: Handler, grace_s: float = 30.0) -> None:
        if not grace_s > 0:
            raise InvalidValue(f"grace_s is {grace_s}; give readers a time above 0 s to come back")
        self._inner = metered(inner)
        self._grace_s = grace_s
        self._streams: dict[str, _Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def start(self, request: Request) -> str:
        """Begin to answer `request`; returns the stream's id. The stream is cancelled unless it is read within `grace_s`."""
        name = uuid.uuid4().hex
        stream = self._streams[name] = _Stream()
        stream.task = asyncio.create_task(stream.run(self._inner, request), name=f"resumable-{name}")
        self._leave_alone(name, stream)
        return name

    def read(self, stream: str, last_event_id: str = "") -> AsyncGenerator[tuple[str, Event], None]:
        """The stream's (id, event) pairs, from its beginning or from the one after `last_event_id`, until it ends.

        A stream has one reader: a new reader takes over, and the earlier one, whose connection is dead, gets no more events.
        Raises `StreamGone` for a stream that is not here, `InvalidRequest` for an id that is not of this stream, and the
        engine's error after the events that came before it.
        """
        return self._read(stream, _place(stream, last_event_id))

    async def sse(self, stream: str, last_event_id: str = "") -> AsyncGenerator[bytes, None]:
        """The events of `read` as Server-Sent Events, in bytes that are ready to be sent."""
        async with aclosing(self.read(stream, last_event_id)) as events:
            async for id, event in events:
                yield encode(event, id)

    async def aclose(self) -> None:
        """Cancel every stream, all the way to the engine."""
        streams = list(self._streams.values())
        for name in list(self._streams):
            self._forget(name)
        tasks = [stream.task for stream in streams if stream.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Resumable:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _read(self, name: str, place: int) -> AsyncGenerator[tuple[str, Event], None]:
        stream = self._streams.get(name)
        if stream is None:
            raise StreamGone(
                f"stream {name!r} is not here; after {self._grace_s} s without a reader it is cancelled: ask anew"
            )
        if place > len(stream.events):
            raise InvalidRequest(f"event {place} of stream {name!r} was never sent; only {len(stream.events)} were")
        me = stream.reader = object()
        if stream.timer is not None:
            stream.timer.cancel()
        stream.tell()  # wakes the earlier reader, which then ends
        try:
            while stream.reader is me:
                if place < len(stream.events):
                    place += 1
                    yield f"{name}:{place}", stream.events[place - 1]
                elif stream.error is not None:
                    raise stream.error
                elif stream.over:
                    return
                else:
                    await stream.news.wait()
        finally:
            if stream.reader is me:
                stream.reader = None
                self._leave_alone(name, stream)

    def _leave_alone(self, name: str, stream: _Stream) -> None:
        stream.timer = asyncio.get_running_loop().call_later(self._grace_s, self._forget, name)

    def _forget(self, name: str) -> None:
        stream = self._streams.pop(name, None)
        if stream is None:
            return
        if stream.timer is not None:
            stream.timer.cancel()
        if stream.task is not None:
            stream.task.cancel()


@dataclass(slots=True, eq=False)
class _Stream:
    events: list[Event] = field(default_factory=list)
    over: bool = False
    error: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    reader: object | None = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    async def run(self, inner: Handler, request: Request) -> None:
        try:
            async with aclosing(held(inner, request)) as events:
                async for event in events:
                    self.events.append(event)
                    self.tell()
        except asyncio.CancelledError:
            self.error = EngineError("the stream was closed; ask anew")
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in the reader
            self.error = error
        finally:
            self.over = True
            self.tell()

    def tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


def _place(stream: str, last_event_id: str) -> int:
    """How many events the reader has had, from its last event id; raises `InvalidRequest` for another stream's id."""
    if not last_event_id:
        return 0
    name, _, place = last_event_id.rpartition(":")
    if name != stream or not (place.isascii() and place.isdigit()):
        raise InvalidRequest(f"Last-Event-ID {last_event_id!r} is no event of stream {stream!r}; send the last id you got")
    return int(place)
