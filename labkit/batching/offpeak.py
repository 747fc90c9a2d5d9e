"""Off-peak: what has until tomorrow waits for tonight.

An engine is rented for its peak, and idle in the valley. Requests whose deadline is far are held while others keep the
engine busy, and started, earliest deadline first (EDF; Liu and Layland, JACM 20(1), 1973), whenever fewer than `level`
requests are under way: the valley fills up to that level and the peak stays as it was.

A valley may come too late. So the held ones go, valley or not, once their *slack* (deadline − now − work) is used up: not
each for itself, or a thousand summaries due at 8:00 would all start in the last minute, but the one at place k of the queue
as if all before it had to run first, `seats` at a time. Greedy work on m machines begins a job no later than (work before
it) / m (Graham, SIAM J. Appl. Math. 17(2), 1969), so from the moment

    deadline_k − work_k − (work under way + work of those before k) / seats,   the least over all k,

working without pause still meets every deadline that it would have met from the beginning.
"""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from labkit.batching.errors import FunctionFailed, QueueFull
from labkit.batching.numbers import seconds, whole
from labkit.request import Chunk, Event, Handler, InvalidValue, LabError, Lever, Request, clock, hops

_SOON_S = 1e-3  # a deadline this near counts as reached: the time it takes to notice


@dataclass(frozen=True)
class OffPeak(Lever):
    """Hold requests with more than `min_slack_s` of slack until fewer than `level` are under way, or their time is up.

    All traffic of the engine must come through here, for that is how `level` is known; what has no deadline, or too little
    slack, goes on at once. Of those held, at most `seats` are under way together. `work_s(request)` is how many seconds one
    takes on a busy engine: estimate it too low, and deadlines are missed, which ends the answer; too high, and the valley is
    used less.

    While the engine is busy, every newcomer costs a look at all who are held: tenths of a millisecond for a thousand.

    The `Done` counts the hold as the caller's and has "off-peak" on its route. Raises, before anything is sent, `QueueFull`
    where `queue_limit` are held, and `FunctionFailed` where `work_s` raised or gave no time.
    """

    level: int
    seats: int
    work_s: Callable[[Request], float]
    min_slack_s: float = 60.0
    queue_limit: int = 10_000

    def __post_init__(self) -> None:
        if not (whole(self.level, 1) and whole(self.seats, 1)):
            raise InvalidValue(f"level is {self.level!r} and seats {self.seats!r}; both are requests under way, from 1")
        if not callable(self.work_s):
            raise InvalidValue(f"work_s is a function from a request to its seconds of work, not {self.work_s!r:.80}")
        if not seconds(self.min_slack_s):
            raise InvalidValue(f"min_slack_s is {self.min_slack_s!r}; hold what has 0 or more seconds of slack")
        if not whole(self.queue_limit, 1):
            raise InvalidValue(f"queue_limit is {self.queue_limit!r}; let 1 or more be held")

    def over(self, inner: Handler) -> Handler:
        """`inner`, with a hold of its own in front."""
        valley = _Valley(self.level, self.seats, self.queue_limit)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, started_unix = clock.now(), clock.unix_now()
            work = self._work(request)
            if request.deadline is None or request.deadline - sent - work <= self.min_slack_s:
                async with valley.passing(), aclosing(inner(request)) as events:
                    async for event in events:
                        yield event
            else:
                async with valley.turn(request.deadline, work), aclosing(inner(request)) as events:
                    async for event in events:
                        yield event if isinstance(event, Chunk) else event.since(sent, started_unix).via(hops.OFF_PEAK)

        return handle

    def _work(self, request: Request) -> float:
        try:
            work = float(self.work_s(request))
        except LabError:
            raise
        except Exception as error:
            raise FunctionFailed(f"OffPeak could not tell how long a request works: work_s raised {error!r:.200}") from error
        if not seconds(work):
            raise FunctionFailed(f"work_s gave {work} for a request of {request.max_tokens} tokens; give seconds from 0")
        return work


@dataclass(slots=True, eq=False)
class _Held:
    deadline: float
    work_s: float
    go: asyncio.Future[None]
    since: float | None = None
    """When it was let go."""


class _Valley:
    """Who passes, who is held, who was let go; in one event loop at a time."""

    def __init__(self, level: int, seats: int, queue_limit: int) -> None:
        self._level = level
        self._seats = seats
        self._queue_limit = queue_limit
        self._passing = 0
        self._held: list[_Held] = []
        self._going: set[_Held] = set()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Count one that is not held."""
        self._passing += 1
        try:
            yield
        finally:
            self._passing -= 1
            self._release()

    @asynccontextmanager
    async def turn(self, deadline: float, work_s: float) -> AsyncIterator[None]:
        """Wait until this one may go."""
        if len(self._held) >= self._queue_limit:
            raise QueueFull(f"{len(self._held)} requests are held, as many as queue_limit allows; send less, or later")
        one = _Held(deadline, work_s, asyncio.get_running_loop().create_future())
        insort(self._held, one, key=lambda held: held.deadline)
        self._due = None
        self._release()
        try:
            await one.go
            yield
        finally:
            if one.since is None:
                self._held.remove(one)
            else:
                self._going.remove(one)
            self._due = None
            self._release()

    def _release(self) -> None:
        """Let go whom the valley, or the deadline, lets go, and come back when the next one must."""
        while self._held and len(self._going) < self._seats:
            full = self._passing + len(self._going) >= self._level
            if full and self._latest() > clock.now() + _SOON_S:
                break
            one = self._held.pop(0)
            one.since = clock.now()
            self._going.add(one)
            self._due = None
            if not one.go.done():  # a cancelled one leaves when it wakes
                one.go.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and len(self._going) < self._seats:
            self._timer = asyncio.get_running_loop().call_at(self._latest(), self._time_is_up)

    def _time_is_up(self) -> None:
        self._due = None  # those under way have worked meanwhile
        self._release()

    def _latest(self) -> float:
        """When the held ones must begin; a little early while others work, for what they have done since is not seen."""
        if self._due is None:
            now = clock.now()
            before = sum(max(0.0, one.work_s - (now - (now if one.since is None else one.since))) for one in self._going)
            self._due = math.inf
            for one in self._held:
                self._due = min(self._due, one.deadline - one.work_s - before / self._seats)
                before += one.work_s
        return self._due
