"""Days of spending to try an alert on: null days, on which nothing changed, and days with a planted regression.

Costs of requests are heavy-tailed, and follow the hour: there are more requests by day, and longer ones. The shape can be
that of a real trace: give the costs of its requests. All is drawn from a seed, so a hidden set of days can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from labkit.request import InvalidValue, is_whole

DAY_S = 24 * 3600.0
Regression = Literal["step", "share", "creep"]
"""What is planted. "step": every request costs more. "share": some requests cost several times as much, as where answers are
asked for twice. "creep": every request costs more and more until the day's end."""


@dataclass(frozen=True, eq=False)
class SpendingDay:
    """A day's requests: `times` in seconds from midnight, ascending, and the dollars of each.

    `usual_usd` is what they would have cost without the regression that `began` at this time of day; None on a null day.
    """

    times: NDArray[Any]
    usd: NDArray[Any]
    usual_usd: NDArray[Any]
    began: float | None = None

    def lost(self, until: float | None) -> float:
        """The dollars that the regression cost until this time of day; of the whole day for None."""
        counted = slice(None) if until is None else self.times <= until
        return float((self.usd - self.usual_usd)[counted].sum())

    def cost_per_request(self, buckets: int = 96) -> NDArray[Any]:
        """The mean cost of a request in each of `buckets` equal parts of the day; NaN where there was none."""
        which = np.minimum((self.times / DAY_S * buckets).astype(int), buckets - 1)
        count = np.bincount(which, minlength=buckets)
        total = np.bincount(which, weights=self.usd, minlength=buckets)
        costs: NDArray[Any] = np.divide(total, count, out=np.full(buckets, np.nan), where=count > 0)
        return costs


def spending_days(
    days: int,
    seed: int,
    *,
    planted: float = 0.5,
    requests: int = 4000,
    costs: Sequence[float] | None = None,
    kinds: Sequence[Regression] = get_args(Regression),
) -> tuple[SpendingDay, ...]:
    """So many `days`, each with a regression of one of `kinds` with probability `planted` (0: null days).

    `requests` is the mean number in a day. `costs` are the dollars of real requests to draw from; by default they are
    log-normal with a median of 0.002 and a σ of 1.2. Equal seeds give equal days. Raises `InvalidValue` for settings out of
    range.
    """
    if not is_whole(days, 1) or not is_whole(requests, 1) or not 0 <= planted <= 1:
        raise InvalidValue(f"{days} days of {requests} requests, planted in {planted}: 1 or more, a share from 0 to 1")
    unknown = set(kinds) - set(get_args(Regression))
    if unknown or not kinds:
        raise InvalidValue(f"kinds is {kinds!r:.80}; choose from {', '.join(get_args(Regression))}")
    pool = None if costs is None else np.asarray(costs, dtype=float)
    if pool is not None and not (pool.size and np.isfinite(pool).all() and (pool > 0).all()):
        raise InvalidValue("costs are to be dollars above 0, at least one")
    rng = np.random.default_rng(seed)
    return tuple(_day(rng, requests, pool, tuple(kinds), rng.random() < planted) for _ in range(days))


def _day(
    rng: np.random.Generator, requests: int, pool: NDArray[Any] | None, kinds: tuple[Regression, ...], planted: bool
) -> SpendingDay:
    hours = np.arange(24 * 60) / 60
    busy = 1 + 0.6 * np.sin(2 * np.pi * (hours - 9) / 24)
    count = max(1, rng.poisson(requests * rng.lognormal(0, 0.1)))
    minutes = rng.choice(len(hours), size=count, p=busy / busy.sum())
    times = np.sort((minutes + rng.random(count)) * 60)
    usual = rng.lognormal(np.log(0.002), 1.2, count) if pool is None else rng.choice(pool, count)
    usual = usual * (1 + 0.3 * np.sin(2 * np.pi * (times / 3600 - 11) / 24)) * rng.lognormal(0, 0.03)
    if not planted:
        return SpendingDay(times, usual, usual)
    began = float(rng.uniform(2, 20)) * 3600
    kind = kinds[rng.integers(len(kinds))]
    after = times >= began
    factor = np.ones(count)
    if kind == "step":
        factor[after] = rng.uniform(1.25, 2)
    elif kind == "share":
        factor[after & (rng.random(count) < rng.uniform(0.1, 0.3))] = rng.uniform(3, 6)
    else:
        factor[after] = 1 + rng.uniform(0.5, 1.5) * (times[after] - began) / (DAY_S - began)
    return SpendingDay(times, usual * factor, usual, began)


@dataclass(frozen=True, slots=True)
class AlertScore:
    """How an alert did on days of which it is known what happened.

    `caught` are the planted days on which it fired after the regression began, `missed` the other planted days, `false` the
    alarms on null days and before anything began. `lost_usd` is what the regressions cost until the alarm, or until the
    day's end; `at_stake_usd` what they cost in all; `delays_s` from beginning to alarm, for those caught.
    """

    caught: int
    missed: int
    false: int
    quiet: int
    lost_usd: float
    at_stake_usd: float
    delays_s: tuple[float, ...]

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 where there was nothing to catch and nothing was."""
        all_of = 2 * self.caught + self.missed + self.false
        return 2 * self.caught / all_of if all_of else 1.0

    @property
    def false_alarm_rate(self) -> float:
        """The share of null days with an alarm (alarms before a regression began count as one of a null day each)."""
        null = self.false + self.quiet
        return self.false / null if null else 0.0


def score_alert(alert: Callable[[SpendingDay], float | None], days: Sequence[SpendingDay]) -> AlertScore:
    """Try `alert`, which gives the time of day at which it fires on a day, or None; it sees the day's `times` and `usd`."""
    caught = missed = false = quiet = 0
    lost = at_stake = 0.0
    delays: list[float] = []
    for day in days:
        fired = alert(SpendingDay(day.times, day.usd, np.full(len(day.usd), np.nan)))  # what is hidden stays so
        if day.began is None:
            false, quiet = false + (fired is not None), quiet + (fired is None)
            continue
        at_stake += day.lost(None)
        if fired is not None and fired >= day.began:
            caught += 1
            delays.append(fired - day.began)
            lost += day.lost(fired)
        else:
            missed, false = missed + 1, false + (fired is not None)
            lost += day.lost(None)
    return AlertScore(caught, missed, false, quiet, lost, at_stake, tuple(delays))
