"""Identical requests at the same time share one stream from the engine.

When many ask one question at once, the cache is still empty, and the engine would be asked once for each of them. Here the
first request starts a *flight*, and every identical request that comes while it is running listens to it, from its first
chunk on. No request owns the flight: it goes on while anybody listens, even if the request that started it has left. When
the last listener leaves, the stream is closed down to the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.caches.rules import fingerprint, scope_of
from labkit.caches.streams import Aside, given_again
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
    """A key that is equal for requests that may share one answer; None if the request wants a random sample of its own."""
    if request.temperature > 0 and request.seed is None:
        return None
    return scope_of(request), fingerprint(request)


@dataclass(frozen=True)
class SingleFlight(Lever):
    """Serves requests of equal `key` that overlap in time from one stream; a request whose key is None shares nothing.

    Each caller keeps its own deadline: the shared stream runs without one, and a caller whose deadline passes leaves while
    the others listen on. An error of the stream reaches all listeners; a new request starts a new stream.

    The request that starts the stream is booked with its tokens and cost, even if it leaves before the others. All others
    get zero tokens, cost 0 and "single-flight" on the route. If `key` raises an error, the answer is not shared, and its
    `Done` says so in `faults`. Raises `InvalidValue` if `key` is not a function.
    """

    key: FlightKey = same_question

    def __post_init__(self) -> None:
        if not callable(self.key):
            raise InvalidValue(f"key is {self.key!r:.80}; give a function from a request to a hashable value, or None")

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked once for all identical requests that overlap in time."""
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
    """The streams that are running now, by the mark of the requests that share them."""

    def __init__(self) -> None:
        self._up: dict[Hashable, _Flight] = {}

    async def join(
        self, request: Request, mark: Hashable, inner: Handler, beneath: tuple[Books, ...]
    ) -> AsyncGenerator[Event, None]:
        """Listen to the flight of `mark` from its first event on; start one with `inner` if none is running.

        Those who join a running flight are recorded in their own books and in the books `beneath`.
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
                self._forget(flight, place)  # first, so that nobody joins a flight that is being cancelled
                flight.task.cancel()
                await asyncio.wait({flight.task})

    async def _fly(self, flight: _Flight, place: Hashable, inner: Handler, request: Request) -> None:
        try:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    flight.events.append(event)
                    flight.tell()
        except asyncio.CancelledError:
            # Cancelled because nobody listens, or from outside; in the second case the listeners get this error.
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
        """Wake all listeners that wait for the next event."""
        news, self.news = self.news, asyncio.Event()
        news.set()


async def _followed(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """A flight as a follower gets it: with the follower's own times, and at no cost."""
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
                yield aside.told(replace(given_again(event), timing=timing).via(hops.SINGLE_FLIGHT))
