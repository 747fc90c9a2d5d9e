"""Off-peak: requests that are due tomorrow wait for tonight.

An engine is rented for its peak load and is idle in the valley between peaks. Requests with a far deadline are held while
others keep the engine busy. They are started, earliest deadline first (EDF; Liu and Layland, JACM 20(1), 1973), whenever
fewer than `level` requests are under way. So the valley fills up to that level, and the peak stays as it was.

A valley may come too late. So held requests are started, valley or not, once their *slack* (deadline − now − work) is used
up. The slack is not counted for each request alone, or a thousand summaries due at 8:00 would all start in the last minute.
It is counted for the request at place k of the queue as if all before it had to run first, `seats` at a time. Greedy work on
m machines begins a job no later than (work before it) / m (Graham, SIAM J. Appl. Math. 17(2), 1969), so from the moment

    deadline_k − work_k − (work under way + work of those before k) / seats,   the least over all k,

working without pause still meets every deadline that working from the beginning would have met.
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

_SOON_S = 1e-3  # a start due within this time counts as due now, because noticing it takes about as long


@dataclass(frozen=True)
class OffPeak(Lever):
    """Hold requests with more than `min_slack_s` of slack until fewer than `level` are under way, or their time is up.

    All traffic of the engine must pass through this lever, because it counts the requests under way and compares them with
    `level`. A request without a deadline, or with too little slack, goes on at once. Of the requests that were held, at most
    `seats` are under way together. `work_s(request)` estimates the seconds that a request takes on a busy engine. If it is
    too low, deadlines are missed, which ends the answer; if it is too high, less of the valley is used.

    While the engine is busy, each new request to be held costs a pass over all held ones: tenths of a millisecond for 1,000.

    The `Done` of a held request counts the hold in its latency and has "off-peak" on its route. Before anything is sent,
    `QueueFull` is raised where `queue_limit` requests are held, and `FunctionFailed` where `work_s` raised an error or gave
    no finite time of 0 or more seconds.
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
        """`inner`, behind a queue of held requests of its own."""
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
    """When it was started; None while it is held."""


class _Valley:
    """The requests that pass unheld, those held, and those started from the hold; in one event loop at a time."""

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
        """Count a request that is not held as under way inside the block."""
        self._passing += 1
        try:
            yield
        finally:
            self._passing -= 1
            self._release()

    @asynccontextmanager
    async def turn(self, deadline: float, work_s: float) -> AsyncIterator[None]:
        """Hold a request until it may start, and count it as under way inside the block."""
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
        """Start the held requests that the valley or their slack lets start, and set a timer for the next one."""
        while self._held and len(self._going) < self._seats:
            full = self._passing + len(self._going) >= self._level
            if full and self._latest() > clock.now() + _SOON_S:
                break
            one = self._held.pop(0)
            one.since = clock.now()
            self._going.add(one)
            self._due = None
            if not one.go.done():  # a cancelled one removes itself when its task resumes
                one.go.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and len(self._going) < self._seats:
            self._timer = asyncio.get_running_loop().call_at(self._latest(), self._time_is_up)

    def _time_is_up(self) -> None:
        self._due = None  # the requests under way have worked since, so it is computed again
        self._release()

    def _latest(self) -> float:
        """When the next held one must start; may be early, as work done since the last computation is not subtracted."""
        if self._due is None:
            now = clock.now()
            before = sum(max(0.0, one.work_s - (now - (now if one.since is None else one.since))) for one in self._going)
            self._due = math.inf
            for one in self._held:
                self._due = min(self._due, one.deadline - one.work_s - before / self._seats)
                before += one.work_s
        return self._due
