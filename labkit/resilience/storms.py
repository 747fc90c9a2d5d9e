"""Retry storms: a short outage, and a system that does not come back when the outage is over.

While the engine is down, callers time out and ask again. When it is back, the retries come on top of the usual load. If
both together are more than it can carry, its queue stays longer than the callers' patience. So it works only for callers
that have left, each of whom asks again, and nobody gets an answer: the state keeps itself up, without its cause. (N.
Bronson et al., "Metastable Failures in Distributed Systems", HotOS 2021; L. Huang et al., "Metastable Failures in the
Wild", OSDI 2022.)

`storm` runs the lab's own levers on the virtual clock, request by request. `sketch` computes the same from a list of
events, without levers and many times as fast, for `phase_diagram`; a test holds it to `storm`, second by second.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count, takewhile
from random import Random

from labkit.load import poisson
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Message,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    is_whole,
    run_virtual,
    stack,
)
from labkit.resilience.backoff import Backoff
from labkit.resilience.retry import Retry
from labkit.resilience.retry_budget import Ratio, RetryBudget
from labkit.routing import Breaker, Fallback

_WINDOW_S = 10
_ENOUGH = 0.8
_SLICES = 10


@dataclass(frozen=True)
class Weather:
    """The load, the engine, the callers and the outage of one run.

    The engine has `slots`, and each answer takes one of them for `service_s` seconds; others wait in their order. So it can
    give slots / service_s answers a second, and `load` is the share of that for which it is asked (Poisson arrivals). An
    answer reads `prompt` tokens, writes `output` tokens, and comes whole. In the outage, of `outage_s` seconds from second
    `outage_at`, the engine accepts requests and does no work. The run lasts `lasts_s` seconds.

    Callers wait `timeout_s` seconds for an attempt, and make up to `attempts` of them, with waits by `backoff` and within
    `budget` (None: no budget). `hears` says whether the engine learns that a caller has left: then it drops the request,
    else it computes the answer all the same (as an engine behind a proxy or a queue does). Raises `InvalidValue` for
    settings that cannot work.
    """

    load: float = 0.7
    attempts: int = 3
    budget: Ratio | None = None
    outage_s: float = 10.0
    hears: bool = False
    slots: int = 10
    service_s: float = 0.5
    timeout_s: float = 2.0
    backoff: Backoff = field(default_factory=Backoff)
    prompt: int = 200
    output: int = 50
    outage_at: float = 20.0
    lasts_s: int = 120
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("load", "outage_s", "service_s", "timeout_s", "outage_at"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InvalidValue(f"{name} is {value!r:.40}; use a finite number above 0")
        for name in ("attempts", "slots", "output", "lasts_s"):
            if not is_whole(getattr(self, name), 1):
                raise InvalidValue(f"{name} is {getattr(self, name)!r:.40}; use a whole number from 1")
        if not is_whole(self.prompt, 0) or not is_whole(self.seed, 0):
            raise InvalidValue(f"prompt is {self.prompt!r:.40} and seed {self.seed!r:.40}; use whole numbers from 0")
        if self.budget is not None and not isinstance(self.budget, Ratio):
            raise InvalidValue(f"budget is {self.budget!r:.80}; give a Ratio, or None for no budget")
        if self.service_s >= self.timeout_s:
            raise InvalidValue(
                f"an answer takes {self.service_s} s and callers wait {self.timeout_s} s; let them wait longer"
            )
        if self.outage_at + self.outage_s + 2 * _WINDOW_S > self.lasts_s:
            raise InvalidValue(f"the run ends at {self.lasts_s} s; let it last {2 * _WINDOW_S} s beyond the outage, or more")

    @property
    def arrivals_per_s(self) -> float:
        """Requests a second."""
        return self.load * self.slots / self.service_s

    @property
    def worst_load(self) -> float:
        """The load, as a share of what the engine can carry, when every attempt fails: first attempts and all their
        retries.

        load · min(attempts, 1 + share + per_second / arrivals a second). Above 1, an engine that does not hear that callers
        leave cannot work its queue off, and stays down; below 1, it comes back.
        """
        most = float(self.attempts)
        if self.budget is not None:
            most = min(most, 1 + self.budget.share + self.budget.per_second / self.arrivals_per_s)
        return self.load * most

    def arrivals(self) -> Iterator[float]:
        """When requests arrive, in seconds, up to the end of the run."""
        return takewhile(lambda at: at < self.lasts_s, poisson(self.arrivals_per_s, self.seed))

    def works_until(self, start: float) -> float:
        """When an answer that is begun at second `start` is done: the engine does no work in the outage."""
        over = self.outage_at + self.outage_s
        if self.outage_at <= start < over:
            start = over
        elif start < self.outage_at < start + self.service_s:
            return start + self.service_s + self.outage_s
        return start + self.service_s

    def written(self, start: float, until: float) -> int:
        """The tokens read and written of an answer that was begun at second `start`, as far as second `until`."""
        over = self.outage_at + self.outage_s
        idle = max(0.0, min(until, over) - max(start, self.outage_at))
        share = (until - start - idle) / self.service_s
        return self.prompt + math.floor(self.output * min(1.0, share)) if share > 0 else 0


@dataclass(frozen=True, slots=True)
class Storm:
    """What happened in each second of a run.

    `offered`: requests that arrived; `attempts`: attempts that reached the engine; `answered`: requests that got their
    answer; `paid`: tokens that the engine read and wrote, by the second in which it ended the work; `useful`: those of them
    in answers that arrived in time.
    """

    weather: Weather
    offered: tuple[int, ...]
    attempts: tuple[int, ...]
    answered: tuple[int, ...]
    paid: tuple[int, ...]
    useful: tuple[int, ...]

    @property
    def recovered_after_s(self) -> int | None:
        """Seconds from the end of the outage until it was over for good; None where that did not happen in the run.

        It is over from the first second on which in each 10 seconds at least 80 % as many requests were answered as
        arrived.
        """
        over = math.ceil(self.weather.outage_at + self.weather.outage_s)
        since = None
        for second in range(len(self.offered) - _WINDOW_S, over - 1, -1):
            window = slice(second, second + _WINDOW_S)
            if sum(self.answered[window]) < _ENOUGH * sum(self.offered[window]):
                break
            since = second
        return None if since is None else since - over

    @property
    def recovered(self) -> bool:
        """Whether requests are answered again at the end of the run."""
        return self.recovered_after_s is not None

    @property
    def multiplier(self) -> float:
        """Tokens paid over tokens useful, of the whole run."""
        return sum(self.paid) / sum(self.useful) if sum(self.useful) else math.inf


def storm(weather: Weather, budgets: tuple[RetryBudget, ...] = (), breaker: Breaker | None = None) -> Storm:
    """Run `weather` through the lab's `Retry` (and `Fallback` with `breaker`, if one is given) on the virtual clock.

    `budgets` hold beside the weather's own `budget`, which is used with a new account, as is the breaker. With a breaker,
    it is the breaker's lever that gives attempts up, so that it sees them fail.
    """
    return run_virtual(_run(weather, budgets, breaker))


async def _run(weather: Weather, budgets: tuple[RetryBudget, ...], breaker: Breaker | None) -> Storm:
    tally = _Tally(weather)
    own = () if weather.budget is None else (replace(weather.budget),)
    patience = weather.timeout_s if breaker is None else 2 * weather.timeout_s
    retry = Retry(weather.attempts, weather.backoff, (*own, *budgets), silence_s=patience, seed=weather.seed)
    engine = _Engine(weather, tally)
    if breaker is None:
        handler = stack(retry, engine=engine)
    else:
        handler = stack(retry, Fallback(("engine",), replace(breaker), weather.timeout_s), engine={"engine": engine})
    under_way: set[asyncio.Task[None]] = set()
    for at in weather.arrivals():
        await clock.sleep_until(at)
        tally.note(tally.offered, at)
        task = asyncio.create_task(_ask(handler, tally))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await clock.sleep_until(weather.lasts_s)
    for task in list(under_way):
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    return tally.storm()


async def _ask(handler: Handler, tally: _Tally) -> None:
    try:
        await complete(handler, Request((Message("user", "A question."),)))
    except EngineError:
        return
    tally.answer(clock.now())


class _Tally:
    """Counts by second; what happens after the end of the run is not counted."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.offered: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.paid: Counter[int] = Counter()

    def note(self, counts: Counter[int], at: float, amount: int = 1) -> None:
        counts[math.floor(at)] += amount

    def answer(self, at: float) -> None:
        self.note(self.answered, at)

    def storm(self) -> Storm:
        seconds = range(self.weather.lasts_s)
        whole = self.weather.prompt + self.weather.output
        counts = (self.offered, self.attempts, self.answered, self.paid)
        offered, attempts, answered, paid = (tuple(each[second] for second in seconds) for each in counts)
        return Storm(self.weather, offered, attempts, answered, paid, tuple(whole * each for each in answered))


class _Engine:
    """An engine with slots and a queue, which does no work in the outage."""

    model = "engine"

    def __init__(self, weather: Weather, tally: _Tally) -> None:
        self._weather = weather
        self._tally = tally
        self._free_at = [0.0] * weather.slots
        self._slots = asyncio.Semaphore(weather.slots)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:  # noqa: ARG002 - all get the same
        weather, sent, unix = self._weather, clock.now(), clock.unix_now()
        self._tally.note(self._tally.attempts, sent)
        if weather.hears:
            async with self._slots:
                await self._work(clock.now())
        else:  # nobody leaves the queue, so the end is known from the beginning
            end = weather.works_until(max(sent, self._free_at[0]))
            heapreplace(self._free_at, end)
            self._tally.note(self._tally.paid, end, weather.prompt + weather.output)
            await clock.sleep_until(end)
        now, usage = clock.now(), Usage(weather.prompt, weather.output)
        yield Chunk("An answer.", now, weather.output, usage=usage)
        yield Done(usage, Timing(sent, now, now, now, unix), model=self.model)

    async def _work(self, start: float) -> None:
        try:
            await clock.sleep_until(self._weather.works_until(start))
        finally:
            now = clock.now()
            self._tally.note(self._tally.paid, now, self._weather.written(start, now))


def sketch(weather: Weather) -> Storm:
    """The same run as `storm(weather)`, from a list of events: arrivals, ends of work, callers that give up, retries."""
    return _Sketch(weather).run()


@dataclass(slots=True, eq=False)
class _Attempt:
    number: int
    start: float | None = None
    over: bool = False


class _Sketch:
    """Events in the order of time; each is the time, a running number for ties, what to do, and with which attempt."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.tally = _Tally(weather)
        self.dice = Random(weather.seed)
        self.events: list[tuple[float, int, str, _Attempt]] = []
        self.order = count()
        self.free_at = [0.0] * weather.slots
        self.free = weather.slots
        self.queue: deque[_Attempt] = deque()
        self.requests: Counter[int] = Counter()
        self.retries: Counter[int] = Counter()

    def run(self) -> Storm:
        self.events = [(at, next(self.order), "arrive", _Attempt(1)) for at in self.weather.arrivals()]
        heapify(self.events)
        act = {"arrive": self._arrive, "again": self._begin, "end": self._end, "leave": self._leave}
        while self.events and self.events[0][0] < self.weather.lasts_s:
            now, _, what, attempt = heappop(self.events)
            act[what](now, attempt)
        return self.tally.storm()

    def _later(self, at: float, what: str, attempt: _Attempt) -> None:
        heappush(self.events, (at, next(self.order), what, attempt))

    def _arrive(self, now: float, attempt: _Attempt) -> None:
        self.tally.note(self.tally.offered, now)
        self.requests[self._slice(now)] += 1
        self._begin(now, attempt)

    def _begin(self, now: float, attempt: _Attempt) -> None:
        weather = self.weather
        self.tally.note(self.tally.attempts, now)
        if weather.hears:
            self.queue.append(attempt)
            self._fill(now)
        else:
            end = weather.works_until(max(now, self.free_at[0]))
            heapreplace(self.free_at, end)
            self.tally.note(self.tally.paid, end, weather.prompt + weather.output)
            if end < now + weather.timeout_s:
                self._later(end, "end", attempt)
        self._later(now + weather.timeout_s, "leave", attempt)

    def _fill(self, now: float) -> None:
        while self.free and self.queue:
            attempt = self.queue.popleft()
            if not attempt.over:
                self.free -= 1
                attempt.start = now
                self._later(self.weather.works_until(now), "end", attempt)

    def _end(self, now: float, attempt: _Attempt) -> None:
        if attempt.over:
            return
        attempt.over = True
        self.tally.answer(now)
        if self.weather.hears:
            self._stop_work(now, attempt)

    def _leave(self, now: float, attempt: _Attempt) -> None:
        if attempt.over:
            return
        attempt.over = True
        if attempt.start is not None:
            self._stop_work(now, attempt)
        if attempt.number < self.weather.attempts:
            wait = self.weather.backoff.wait_s(attempt.number, self.dice)  # drawn first, as `Retry` does
            if self._allowed(now):
                self._later(now + wait, "again", _Attempt(attempt.number + 1))

    def _stop_work(self, now: float, attempt: _Attempt) -> None:
        self.tally.note(self.tally.paid, now, self.weather.written(attempt.start or 0.0, now))
        self.free += 1
        self._fill(now)

    def _slice(self, now: float) -> int:
        return math.floor(now / (self.weather.budget.ttl_s / _SLICES)) if self.weather.budget else 0

    def _allowed(self, now: float) -> bool:
        """The rule of `Ratio`, written again."""
        budget = self.weather.budget
        if budget is None:
            return True
        this = self._slice(now)
        last = range(this - _SLICES + 1, this + 1)
        balance = budget.share * sum(self.requests[n] for n in last) + budget.per_second * budget.ttl_s
        if balance - sum(self.retries[n] for n in last) < 1 - 1e-9:
            return False
        self.retries[this] += 1
        return True


@dataclass(frozen=True, slots=True)
class Phase:
    """One point of a phase diagram: its settings, and whether and after how many seconds the system came back.

    `share` is that of the retry budget (`Ratio`, nothing beside it), None without a budget. `multiplier` is tokens paid
    over tokens useful of the whole run.
    """

    load: float
    attempts: int
    share: float | None
    recovered_after_s: int | None
    multiplier: float
    worst_load: float

    @property
    def recovered(self) -> bool:
        """Whether it came back within the run."""
        return self.recovered_after_s is not None


def phase_diagram(
    weather: Weather, loads: Iterable[float], attempts: Iterable[int], shares: Iterable[float | None]
) -> tuple[Phase, ...]:
    """`sketch` of `weather` at each combination of load, attempts and budget share, in this order of nesting."""
    points = [(load, most, share) for load in loads for most in attempts for share in shares]
    return tuple(_phase(weather, *point) for point in points)


def _phase(weather: Weather, load: float, attempts: int, share: float | None) -> Phase:
    budget = None if share is None else Ratio(share, 0.0)
    run = sketch(replace(weather, load=load, attempts=attempts, budget=budget))
    return Phase(load, attempts, share, run.recovered_after_s, run.multiplier, run.weather.worst_load)
