"""Pools: kinds of work that share an engine, each with its own limit, reserved seats and priority.

An engine serves all requests that it is sent. A `Gate` in front of it has a number of *seats*, and a request holds one for
as long as it is under way. A `Pool` says how one kind of work may use them: `at_most` limits its requests under way, and
`reserved` seats stay empty until the pool's own requests come. All other seats go to the next request of any pool.

The next request is the one with the lowest rank among those that may have a seat. Its rank is its time of arrival +
`priority` × `priority_s`. So a step of priority is worth `priority_s` seconds of waiting (as in `Batcher`); a request that
has waited long enough goes before any priority, and no request starves. vLLM's own priority takes no account of waiting
time. So with more seats here than the engine's `max_num_seqs`, requests of a high priority number queue again inside the
engine, behind all others, for as long as others come.
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
    """A kind of work that shares an engine with others, and how it may use the seats of a `Gate`.

    At most `at_most` of its requests are under way (None: as many as there are seats), and at most `queue_limit` wait.
    `reserved` seats go to no other pool. `priority` orders waiting requests and is also passed to the engine as
    `Request.priority` (lower goes first). Raises `InvalidValue` for settings that cannot work.
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
    """`seats` that `pools` share; works on both clocks, in one event loop at a time.

    Raises `InvalidValue` for settings that cannot work, such as reserved seats that leave one of the pools no seat at all.
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
        """The number of requests of `pool` that have a seat; raises `InvalidRequest` for a pool that is not in the gate."""
        return self._line(pool).seated

    def waiting(self, pool: str) -> int:
        """The number of requests of `pool` that wait for a seat; raises `InvalidRequest` as `under_way` does."""
        return len(self._line(pool).waiting)

    @asynccontextmanager
    async def seat(self, pool: str) -> AsyncIterator[Pool]:
        """Wait for a seat for `pool` and hold it inside the block; a wait that is cancelled leaves the queue.

        Raises `QueueFull` at once where the pool's `queue_limit` of requests wait already, and `InvalidRequest` for a pool
        that the gate does not have.
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
        """Give every seat that may be taken to the next request."""
        while True:
            held = sum(max(line.seated, line.pool.reserved) for line in self._lines.values())
            ready = [line for line in self._lines.values() if line.waiting and line.may_take(self.seats - held)]
            if not ready:
                return
            line = min(ready, key=lambda line: next(iter(line.waiting)).rank)
            turn, _ = line.waiting.popitem(last=False)
            line.seated += 1
            turn.seated = True
            if not turn.came.done():  # a cancelled one gives its seat back when its task resumes
                turn.came.set_result(None)


def feature_of(request: Request) -> str:
    """The feature of `request`, for a gate whose pools are named after features."""
    return request.feature


@dataclass(frozen=True)
class Pooled(Lever):
    """Pass a request on, with its pool's priority, when its pool `which(request)` has a seat for it in `gate`.

    The `Done` counts the wait in its latency and has "pool:NAME" on its route. Pools with engines of their own share no
    seats: in that case, route first, and put a gate in front of each engine. Before anything is sent, `QueueFull` is raised
    where too many wait, `InvalidRequest` for a pool that the gate does not have, and `FunctionFailed` where `which` raised.
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
    """A pool and its requests: how many have a seat, and which ones wait, in the order in which they came."""

    pool: Pool
    seated: int = 0
    waiting: OrderedDict[_Turn, None] = field(default_factory=OrderedDict)

    def may_take(self, free: int) -> bool:
        """Whether its next request may have a seat, when `free` seats are neither taken nor reserved."""
        if self.pool.at_most is not None and self.seated >= self.pool.at_most:
            return False
        return self.seated < self.pool.reserved or free > 0
