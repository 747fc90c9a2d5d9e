"""Change detection on the cost of a request, with a stated false-alarm rate.

A one-sided CUSUM (Page, "Continuous Inspection Schemes", Biometrika 1954) adds up by how much each part of the day was
dearer than usual: S ← max(0, S + z − reference). A small change that lasts gets as high as a large one that is short.
`reference` is half the change that is to be found quickest, in standard deviations.

Costs are heavy-tailed and follow the hour, so z is taken from the logarithm of a part's mean cost, less what is usual for
that part of the day, over its spread, and is clipped at 4.

S reaches the threshold by chance with a known probability a day. It comes from days that are drawn from the null days:
moving blocks of their scores, so that what belongs together for an hour or two stays together, and on top of that a shift
of the whole day, as wide as the null days differ by (a t distribution, as they are few). Without the shift, a day that was
a little dearer from morning to night would be called a change far too often. The scores of a null day are taken with what
is usual on the *other* null days, as the days to come will be: so the error of the usual itself is in them. What the null
days do not show (a quiet Sunday, say, after a fortnight of working days) is a change to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.alerts.days import DAY_S, SpendingDay
from labkit.request import InvalidValue, is_whole

_CLIP = 4.0
_LEAST_DAYS = 5
_NEIGHBOURS = 4
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change was found at `at`, in seconds from the first midnight; it seems to have begun at `since`."""

    at: float
    since: float


@dataclass(frozen=True, eq=False)
class Cusum:
    """Watches the mean cost of a request, in equal parts of the day. Make one with `fitted`.

    `usual` and `spread` are of the logarithm of the cost, for each part of the day. `false_alarms` is the probability of an
    alarm on a day on which nothing changed, by which the threshold was found.
    """

    usual: NDArray[Any]
    spread: NDArray[Any]
    reference: float
    threshold: float
    false_alarms: float

    @classmethod
    def fitted(
        cls,
        null: Sequence[SpendingDay],
        *,
        false_alarms: float = 0.01,
        reference: float = 0.5,
        buckets: int = 96,
        draws: int = 4000,
        seed: int = 0,
    ) -> Cusum:
        """The detector for days like these `null` days, which alarms on a share of about `false_alarms` of them.

        The rate holds on average over sets of null days. For one set it may be off, as the set itself was a draw: of 25 sets
        of 28 log-normal days, for a rate of 5 %, the mean was 5.3 %, the extremes were 2.3 % and 12 %. More days bring it
        nearer. Raises `InvalidValue` for fewer than 5 null days and for settings out of range.
        """
        logs = _logs(null, false_alarms, buckets, draws)
        if not reference >= 0:
            raise InvalidValue(f"reference is {reference!r:.40}; use a number of standard deviations from 0")
        usual, spread = _usual(logs)
        drawn = np.clip(_drawn(logs, draws, seed), -_CLIP, _CLIP)
        highest = np.zeros(draws)
        level = np.zeros(draws)
        for part in range(buckets):
            level = np.maximum(0.0, level + drawn[:, part] - reference)
            highest = np.maximum(highest, level)
        return cls(usual, spread, reference, float(np.quantile(highest, 1 - false_alarms, method="higher")), false_alarms)

    def watch(self, days: Sequence[SpendingDay]) -> Alarm | None:
        """The first alarm on these days, one after the other; None if there is none. A part's alarm comes at its end."""
        part_s = DAY_S / len(self.usual)
        level, since, place = 0.0, 0, 0
        for day in days:
            for score in np.clip(_scores(_log(day, len(self.usual)), self.usual, self.spread), -_CLIP, _CLIP):
                if level == 0:
                    since = place
                level = max(0.0, level + float(score) - self.reference)
                place += 1
                if level > self.threshold:
                    return Alarm(place * part_s, since * part_s)
        return None

    def fires(self, day: SpendingDay) -> float | None:
        """The time of day at which it fires on this day alone; the alert that `score_alert` takes."""
        alarm = self.watch((day,))
        return None if alarm is None else alarm.at


@dataclass(frozen=True, slots=True)
class PlainThreshold:
    """Fires when the mean cost of a request in a part of the day is above `usd`: the alert that most people write first."""

    usd: float
    false_alarms: float
    buckets: int = 96

    @classmethod
    def fitted(
        cls,
        null: Sequence[SpendingDay],
        *,
        false_alarms: float = 0.01,
        buckets: int = 96,
        draws: int = 4000,
        seed: int = 0,
    ) -> PlainThreshold:
        """The threshold that days like these `null` days exceed with probability `false_alarms`.

        The days are drawn as for `Cusum.fitted`, so the two have the same stated rate. Raises `InvalidValue` as that does.
        """
        logs = _logs(null, false_alarms, buckets, draws)
        usual, spread = _usual(logs)
        highest = (usual + spread * _drawn(logs, draws, seed)).max(axis=1)
        return cls(float(np.exp(np.quantile(highest, 1 - false_alarms, method="higher"))), false_alarms, buckets)

    def fires(self, day: SpendingDay) -> float | None:
        """The time of day at which it fires on this day; None if it does not."""
        above = np.flatnonzero(np.nan_to_num(day.cost_per_request(self.buckets)) > self.usd)
        return None if not above.size else float((above[0] + 1) * DAY_S / self.buckets)


def _logs(null: Sequence[SpendingDay], false_alarms: float, buckets: int, draws: int) -> NDArray[Any]:
    if len(null) < _LEAST_DAYS:
        raise InvalidValue(f"{len(null)} null days; what is usual takes {_LEAST_DAYS} or more, two weeks better")
    if not 0 < false_alarms < 1 or not is_whole(draws, 1) or draws * false_alarms < 10:
        raise InvalidValue(
            f"false_alarms is {false_alarms!r:.40} a day and draws {draws!r:.40}; use a rate between 0 and 1, and draws "
            "enough for 10 alarms"
        )
    if not is_whole(buckets, 1):
        raise InvalidValue(f"buckets is {buckets!r:.40}; cut the day into 1 part or more")
    return np.stack([_log(day, buckets) for day in null])


def _log(day: SpendingDay, buckets: int) -> NDArray[Any]:
    costs = day.cost_per_request(buckets)
    logs: NDArray[Any] = np.log(costs, out=np.full(buckets, np.nan), where=costs > 0)
    return logs  # parts without requests, or with free ones only, say nothing


def _usual(logs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean of each part of the day, and its spread: that of the part and its neighbours together, as days are few."""
    known = np.isfinite(logs)
    count = known.sum(axis=0)
    total = np.where(known, logs, 0.0).sum(axis=0)
    overall = total.sum() / max(1, count.sum())
    usual = np.where(count > 0, total / np.maximum(count, 1), overall)
    squares = np.where(known, logs - usual, 0.0) ** 2
    around = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    near = sum(np.roll(squares.sum(axis=0), shift) for shift in around)
    free = sum(np.roll(np.maximum(count - 1, 0), shift) for shift in around)
    spread = np.sqrt(near / np.maximum(free, 1))
    least = max(float(np.median(spread)) / 10, 1e-9)
    return usual, np.maximum(spread, least)


def _scores(log: NDArray[Any], usual: NDArray[Any], spread: NDArray[Any]) -> NDArray[Any]:
    scores: NDArray[Any] = np.nan_to_num((log - usual) / spread)
    return scores


def _drawn(logs: NDArray[Any], draws: int, seed: int) -> NDArray[Any]:
    """The scores of `draws` days on which nothing changed."""
    days, buckets = logs.shape
    scores = np.stack([_scores(day, *_usual(np.delete(logs, i, axis=0))) for i, day in enumerate(logs)])
    means = scores.mean(axis=1)
    rest = (scores - means[:, None]).ravel()
    rng = np.random.default_rng(seed)
    starts = rng.integers(len(rest), size=(draws, -(-buckets // _BLOCK)))
    drawn: NDArray[Any] = rest[(starts[:, :, None] + np.arange(_BLOCK)) % len(rest)].reshape(draws, -1)[:, :buckets]
    between = max(0.0, float(means.var(ddof=1) - drawn.mean(axis=1).var()))  # more than the blocks themselves bring
    shifted: NDArray[Any] = drawn + np.sqrt(between) * rng.standard_t(days - 1, size=(draws, 1))
    return shifted
