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
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal

from labkit.caches.rules import fingerprint, scope_of
from labkit.caches.streams import FLIGHT
from labkit.request import Chunk, Done, EngineError, Event, Handler, Request, Timing, Usage, clock, deadlines

FlightKey = Callable[[Request], Hashable | None]


def same_question(request: Request) -> Hashable | None:
    """Equal for requests that may share one answer; None for one that wants a random sample of its own."""
    if request.temperature > 0 and request.seed is None:
        return None
    return scope_of(request), fingerprint(request)


def single_flight(inner: Handler, *, key: FlightKey = same_question, currency: str = "USD") -> Handler:
    """Serve requests of equal `key` that overlap in time by one stream of `inner`; a key of None is never shared.

    Deadlines stay each caller's own: `inner` sees the request without one, a caller whose deadline passes leaves with
    `DeadlineExceeded`, the others listen on. An error of `inner` reaches all who listen; asking again starts anew.

    The books count the stream once. The first caller still listening is given its usage (less what callers before it took
    with them when they left); all others get zero tokens, cost 0 in `currency`, and "single-flight" on the route.
    """
    flights = Flights(currency)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        mark = key(request)
        async with aclosing(inner(request) if mark is None else flights.join(request, mark, inner)) as events:
            async for event in events:
                yield event

    return handle


class Flights:
    """The streams that are up now, by the mark of what they answer; `single_flight` for callers with marks of their own."""

    def __init__(self, currency: str = "USD") -> None:
        self._currency = currency
        self._up: dict[Hashable, _Flight] = {}

    def join(self, request: Request, mark: Hashable, inner: Handler) -> AsyncGenerator[Event, None]:
        """Listen to the flight of `mark` from its beginning, starting one with `inner` where none is up."""

        def listen(request: Request) -> AsyncGenerator[Event, None]:
            return self._listen(request, mark, inner)

        return deadlines(listen)(request)

    async def _listen(self, request: Request, mark: Hashable, inner: Handler) -> AsyncGenerator[Event, None]:
        mark = asyncio.get_running_loop(), mark
        flight = self._up.get(mark)
        if flight is None:
            flight = self._up[mark] = _Flight()
            flight.task = asyncio.create_task(self._fly(flight, mark, inner, replace(request, deadline=None)))
        seat = _Seat(clock.now(), clock.unix_now(), leads=not flight.used and not flight.seats)
        flight.seats.append(seat)
        try:
            while True:
                while seat.heard < len(flight.events):
                    yield flight.next_event(seat, self._currency)
                if flight.error is not None:
                    raise flight.error
                if flight.landed:
                    return
                await flight.news.wait()
        finally:
            flight.leave(seat)
            if not flight.seats and not flight.landed and flight.task is not None:
                self._forget(flight, mark)  # first: who asks from now on must not board a flight that is being called off
                flight.task.cancel()
                await asyncio.wait({flight.task})

    async def _fly(self, flight: _Flight, mark: Hashable, inner: Handler, request: Request) -> None:
        try:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    flight.add(event)
        except asyncio.CancelledError:
            # Called off because nobody listens, or by somebody else; then those who do are not cancelled themselves.
            flight.error = EngineError("the stream that this request shared was cancelled; ask again")
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in every caller
            flight.error = error
        finally:
            flight.landed = True
            self._forget(flight, mark)
            flight.tell()

    def _forget(self, flight: _Flight, mark: Hashable) -> None:
        if self._up.get(mark) is flight:
            del self._up[mark]


@dataclass(slots=True, eq=False)
class _Seat:
    """One caller: when it came, how far it has heard, what it saw when."""

    sent: float
    started_unix: float
    leads: bool
    heard: int = 0
    first_token: float | None = None
    last_token: float | None = None


@dataclass(slots=True, eq=False)
class _Flight:
    events: list[Event] = field(default_factory=list)
    used: list[Usage] = field(default_factory=list)
    """What had been used up to each event, as the books would count a stream cut after it."""
    seats: list[_Seat] = field(default_factory=list)
    charged: Usage = field(default_factory=Usage)
    paid: bool = False
    landed: bool = False
    error: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def add(self, event: Event) -> None:
        before = self.used[-1] if self.used else Usage()
        if isinstance(event, Done):
            self.used.append(event.usage)
        else:
            self.used.append(before + Usage(output_tokens=event.tokens) if event.usage is None else event.usage)
        self.events.append(event)
        self.tell()

    def tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    def next_event(self, seat: _Seat, currency: str) -> Event:
        event, used = self.events[seat.heard], self.used[seat.heard]
        seat.heard += 1
        pays = self.seats[0] is seat and not self.paid
        usage = _less(used, self.charged) if pays else Usage()
        now = clock.now()
        if isinstance(event, Chunk):
            at = event.at if seat.leads else now
            if event.text or event.reasoning:
                seat.first_token = at if seat.first_token is None else seat.first_token
                seat.last_token = at
            return event if seat.leads and pays else replace(event, at=at, usage=usage)
        self.paid = self.paid or pays
        if seat.leads and pays:
            return event
        timing = Timing(seat.sent, seat.first_token, seat.last_token, now, seat.started_unix)
        done = replace(event, usage=usage, timing=timing).via(FLIGHT)
        return done if pays else replace(done, cost=Decimal(0), currency=currency)

    def leave(self, seat: _Seat) -> None:
        if self.seats[0] is seat and not self.paid and seat.heard:
            seen = self.used[seat.heard - 1]
            self.charged = Usage(*(max(getattr(seen, f.name), getattr(self.charged, f.name)) for f in fields(Usage)))
        self.seats.remove(seat)


def _less(usage: Usage, charged: Usage) -> Usage:
    """What of `usage` nobody has been charged for yet."""
    parts = {f.name: max(0, getattr(usage, f.name) - getattr(charged, f.name)) for f in fields(Usage)}
    # The totals are exact; a part that an engine names only at the end may have been charged already as something else.
    parts["cached_tokens"] = min(parts["cached_tokens"], parts["input_tokens"])
    parts["cache_write_tokens"] = min(parts["cache_write_tokens"], parts["input_tokens"] - parts["cached_tokens"])
    parts["reasoning_tokens"] = min(parts["reasoning_tokens"], parts["output_tokens"])
    return Usage(**parts)
