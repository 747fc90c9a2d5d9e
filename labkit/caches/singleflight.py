"""Identical requests at the same time: one stream from the engine, everybody reads it.

A burst on one question finds a cache empty and would ask the engine once for each of them. Here the first of them starts a
*flight*, and whoever asks the same while it is up listens in, from its first chunk on. The flight belongs to nobody: it
goes on while anybody listens, whether or not the one who started it still does, and is closed down to the engine when the
last one leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.caches.rules import fingerprint, scope_of
from labkit.caches.streams import Aside, repeated
from labkit.request import (
    Books,
    Chunk,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    Timing,
    Usage,
    books_in,
    clock,
    hops,
    served,
)

FlightKey = Callable[[Request], Hashable | None]


def same_question(request: Request) -> Hashable | None:
    """Equal for requests that may share one answer; None for one that wants a random sample of its own."""
    if request.temperature > 0 and request.seed is None:
        return None
    return scope_of(request), fingerprint(request)


@dataclass(frozen=True)
class SingleFlight(Lever):
    """Serve requests of equal `key` that overlap in time by one stream; a key of None is never shared.

    Deadlines stay each caller's own: the shared stream runs without one, a caller whose deadline passes leaves, the others
    listen on. An error of the stream reaches all who listen; asking again starts anew.

    Whoever starts the stream pays for it, and is booked with it even if it leaves before the others. All others get zero
    tokens, cost 0 and "single-flight" on the route. A key that fails is told on the `Done` of an answer that is not shared.
    """

    key: FlightKey = same_question

    def __post_init__(self) -> None:
        if not callable(self.key):
            raise InvalidValue(f"key is {self.key!r:.80}; give a function from a request to a hashable value, or None")

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked once for all who ask the same at a time."""
        flights, beneath = Flights(), books_in(inner)

        def marked(request: Request) -> Hashable | None:
            mark = self.key(request)
            hash(mark)
            return mark

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            aside = Aside(hops.SINGLE_FLIGHT)
            mark = aside.attempt(lambda: marked(request))
            events = aside.beside(inner(request)) if mark is None else flights.join(request, mark, inner, beneath)
            async with aclosing(events) as stream:
                async for event in stream:
                    yield event

        return handle


class Flights:
    """The streams that are up now, by the mark of what they answer."""

    def __init__(self) -> None:
        self._up: dict[Hashable, _Flight] = {}

    async def join(
        self, request: Request, mark: Hashable, inner: Handler, beneath: tuple[Books, ...]
    ) -> AsyncGenerator[Event, None]:
        """Listen to the flight of `mark` from its beginning, starting one with `inner` where none is up.

        Followers are recorded in their own books and in those `beneath`.
        """
        place = asyncio.get_running_loop(), mark
        flight = self._up.get(place)
        if flight is None:
            flight = self._up[place] = _Flight()
            flight.task = asyncio.create_task(self._fly(flight, place, inner, replace(request, deadline=None, held=None)))
            events = self._heard(flight, place)
        else:
            events = served(_followed(self._heard(flight, place)), request, beneath)
        async with aclosing(events) as stream:
            async for event in stream:
                yield event

    async def _heard(self, flight: _Flight, place: Hashable) -> AsyncGenerator[Event, None]:
        heard = 0
        flight.listeners += 1
        try:
            while True:
                while heard < len(flight.events):
                    heard += 1
                    yield flight.events[heard - 1]
                if flight.error is not None:
                    raise flight.error
                if flight.landed:
                    return
                await flight.news.wait()
        finally:
            flight.listeners -= 1
            if not flight.listeners and not flight.landed and flight.task is not None:
                self._forget(flight, place)  # first: who asks from now on must not board a flight that is being called off
                flight.task.cancel()
                await asyncio.wait({flight.task})

    async def _fly(self, flight: _Flight, place: Hashable, inner: Handler, request: Request) -> None:
        try:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    flight.events.append(event)
                    flight.tell()
        except asyncio.CancelledError:
            # Called off because nobody listens, or by somebody else; then those who do are not cancelled themselves.
            flight.error = EngineError("the stream that this request shared was cancelled; ask again")
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in every caller
            flight.error = error
        finally:
            flight.landed = True
            self._forget(flight, place)
            flight.tell()

    def _forget(self, flight: _Flight, place: Hashable) -> None:
        if self._up.get(place) is flight:
            del self._up[place]


@dataclass(slots=True, eq=False)
class _Flight:
    events: list[Event] = field(default_factory=list)
    listeners: int = 0
    landed: bool = False
    error: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Wake all who wait for the next event."""
        news, self.news = self.news, asyncio.Event()
        news.set()


async def _followed(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """A flight as a follower hears it: at its own times, and at nobody's cost."""
    aside = Aside(hops.SINGLE_FLIGHT)
    began = aside.attempt(lambda: (clock.now(), clock.unix_now()))
    first: float | None = None
    last: float | None = None
    async with aclosing(events) as stream:
        async for event in stream:
            now = aside.attempt(clock.now)
            if isinstance(event, Chunk):
                at = event.at if now is None else now
                if event.has_content:
                    first, last = at if first is None else first, at
                yield replace(event, at=at, usage=Usage())
            else:
                timing = event.timing if began is None or now is None else Timing(began[0], first, last, now, began[1])
                yield aside.told(replace(repeated(event), timing=timing).via(hops.SINGLE_FLIGHT))
