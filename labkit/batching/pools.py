"""Pools: kinds of work that share an engine, each with a limit, a wall or a priority of its own.

An engine serves whoever it is sent. A `Gate` in front of it has so many *seats*, and a request has one for as long as it is
under way. What a pool may do with them is its `Pool`: `at_most` keeps a flood small, `reserved` is a wall around seats that
stay empty until its own requests come, and all other seats are lent to whoever is next.

Next is the request with the lowest rank that may have the seat; its rank is when it came + `priority` × `priority_s`. So a
step of priority is worth `priority_s` seconds of waiting (as in `Batcher`), whoever has waited long enough goes before any
priority, and nobody starves. vLLM's own priority knows no waiting time: with more seats here than the engine's
`max_num_seqs`, those of a high number queue again inside, behind all others, for as long as others come.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from labkit.batching.errors import FunctionFailed, QueueFull
from labkit.batching.numbers import seconds, whole
from labkit.request import Chunk, Event, Handler, InvalidRequest, InvalidValue, LabError, Lever, Request, clock, hops


@dataclass(frozen=True, slots=True)
class Pool:
    """A kind of work: at most `at_most` requests of it under way (None: as many as there are seats), `reserved` seats that
    nobody else gets, at most `queue_limit` waiting, and the `priority` that the engine is told (lower goes first).
    """

    name: str
    at_most: int | None = None
    reserved: int = 0
    queue_limit: int = 1024
    priority: int = 0

    def __post_init__(self) -> None:
        if not (self.name and isinstance(self.name, str)):
            raise InvalidValue(f"a pool has no name, but {self.name!r:.80}; name it after its work, such as 'interactive'")
        if self.at_most is not None and not whole(self.at_most, 1):
            raise InvalidValue(
                f"pool {self.name!r}: at_most is {self.at_most!r}; let in 1 or more, or nobody is ever served"
            )
        if not whole(self.reserved, 0) or (self.at_most is not None and self.reserved > self.at_most):
            raise InvalidValue(
                f"pool {self.name!r}: reserved is {self.reserved!r} and at_most {self.at_most}; reserve from 0 to at_most"
            )
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise InvalidValue(f"pool {self.name!r}: priority is {self.priority!r}; use a whole number, lower goes first")
        if not whole(self.queue_limit, 0):
            raise InvalidValue(f"pool {self.name!r}: queue_limit is {self.queue_limit!r}; use 0 to let nobody wait")


class Gate:
    """`seats` that `pools` share; on both clocks, in one event loop at a time.

    Raises `InvalidValue` for pools that cannot all be served: reserves that leave one of them no seat at all.
    """

    def __init__(self, seats: int, *pools: Pool, priority_s: float = 1.0) -> None:
        for pool in pools:
            if not isinstance(pool, Pool):
                raise InvalidValue(f"a gate is shared by pools, such as Pool('chat'), not {pool!r:.80}")
        if not whole(seats, 0):
            raise InvalidValue(f"seats is {seats!r}; give the requests that may be under way, a whole number")
        names = [pool.name for pool in pools]
        if not pools or len(set(names)) < len(names):
            raise InvalidValue(f"the pools are {names}; give one or more, each with a name of its own")
        walled = sum(pool.reserved for pool in pools)
        if walled > seats:
            raise InvalidValue(f"{walled} seats are reserved and there are {seats}; reserve less")
        for pool in pools:
            if seats - walled + pool.reserved < 1:
                raise InvalidValue(
                    f"of {seats} seats the others reserve {walled - pool.reserved}, and pool {pool.name!r} never gets one; "
                    "reserve less, or open more seats"
                )
        if not seconds(priority_s):
            raise InvalidValue(f"priority_s is {priority_s!r}; a step of priority is worth 0 or more seconds of waiting")
        self.seats = seats
        self.pools = pools
        self.priority_s = priority_s
        self._lines = {pool.name: _Line(pool) for pool in pools}

    def __repr__(self) -> str:
        return f"Gate({', '.join([str(self.seats), *(repr(line.pool) for line in self._lines.values())])})"

    def under_way(self, pool: str) -> int:
        """Requests of `pool` that have a seat."""
        return self._line(pool).seated

    def waiting(self, pool: str) -> int:
        """Requests of `pool` that wait for one."""
        return len(self._line(pool).waiting)

    @asynccontextmanager
    async def seat(self, pool: str) -> AsyncIterator[Pool]:
        """Wait for a seat of `pool` and have it inside the block; who is cancelled while waiting leaves no trace.

        Raises `QueueFull` at once where as many wait as may, `InvalidRequest` for a pool that is not here.
        """
        line = self._line(pool)
        turn = _Turn(clock.now() + line.pool.priority * self.priority_s, asyncio.get_running_loop().create_future())
        line.waiting[turn] = None
        self._fill()
        if not turn.seated and len(line.waiting) > line.pool.queue_limit:
            del line.waiting[turn]
            raise QueueFull(
                f"{line.seated} requests of pool {pool!r} are under way and {len(line.waiting)} wait, as many as its "
                "queue_limit allows; send less, or later"
            )
        try:
            await turn.came
            yield line.pool
        finally:
            if turn.seated:
                line.seated -= 1
            else:
                del line.waiting[turn]
            self._fill()

    def _line(self, pool: str) -> _Line:
        line = self._lines.get(pool) if isinstance(pool, str) else None
        if line is None:
            raise InvalidRequest(f"there is no pool {pool!r:.80}; this gate has {', '.join(self._lines)}")
        return line

    def _fill(self) -> None:
        """Give every seat that may be taken to whoever is next."""
        while True:
            held = sum(max(line.seated, line.pool.reserved) for line in self._lines.values())
            ready = [line for line in self._lines.values() if line.waiting and line.may_take(self.seats - held)]
            if not ready:
                return
            line = min(ready, key=lambda line: next(iter(line.waiting)).rank)
            turn, _ = line.waiting.popitem(last=False)
            line.seated += 1
            turn.seated = True
            if not turn.came.done():  # a cancelled one gives its seat back when it wakes
                turn.came.set_result(None)


def feature_of(request: Request) -> str:
    """The pool of a request whose feature is a pool's name."""
    return request.feature


@dataclass(frozen=True)
class Pooled(Lever):
    """Let a request on when its pool `which(request)` has a seat for it in `gate`, with that pool's priority.

    The `Done` counts the wait as the caller's, and has "pool:NAME" on its route. Pools with engines of their own share no
    seats: route first, and put a gate in front of each. Raises, before anything is sent, `QueueFull`, `InvalidRequest` for a
    pool that the gate does not have, and `FunctionFailed` where `which` raised.
    """

    gate: Gate
    which: Callable[[Request], str] = feature_of

    def __post_init__(self) -> None:
        if not isinstance(self.gate, Gate):
            raise InvalidValue(f"Pooled takes a Gate, such as Gate(8, Pool('chat')), not {self.gate!r:.80}")
        if not callable(self.which):
            raise InvalidValue(f"which is a function from a request to its pool's name, not {self.which!r:.80}")

    def over(self, inner: Handler) -> Handler:
        """`inner`, behind the gate."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, started_unix = clock.now(), clock.unix_now()
            async with (
                self.gate.seat(self._pool(request)) as pool,
                aclosing(inner(replace(request, priority=pool.priority))) as events,
            ):
                async for event in events:
                    if isinstance(event, Chunk):
                        yield event
                    else:
                        yield event.since(sent, started_unix).via(hops.hop(hops.POOL, pool.name))

        return handle

    def _pool(self, request: Request) -> str:
        try:
            return self.which(request)
        except LabError:
            raise
        except Exception as error:
            raise FunctionFailed(
                f"Pooled could not tell the request's pool: which raised {error!r:.200}; mend it"
            ) from error


@dataclass(slots=True, eq=False)
class _Turn:
    rank: float
    came: asyncio.Future[None]
    seated: bool = False


@dataclass(slots=True, eq=False)
class _Line:
    """A pool and its requests: how many have a seat, and who waits, in the order in which they came."""

    pool: Pool
    seated: int = 0
    waiting: OrderedDict[_Turn, None] = field(default_factory=OrderedDict)

    def may_take(self, free: int) -> bool:
        """Whether it may have a seat, when `free` are neither taken nor reserved."""
        if self.pool.at_most is not None and self.seated >= self.pool.at_most:
            return False
        return self.seated < self.pool.reserved or free > 0
