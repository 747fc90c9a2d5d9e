"""Rounds of one measurement, and what they can tell: a median with its interval, and whether one thing is below another.

A run measures in rounds because machines are noisy. The interval of the median comes from order statistics (Hahn and Meeker,
Statistical Intervals, 2017, 5.2): it lies between the k-th smallest and the k-th largest round, which needs no distribution.
Its coverage is 1 − 2·P(Bin(n, ½) < k). Five rounds or fewer give the smallest and the largest, which cover less than 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from labkit.workbook.exercise import ExerciseError

COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """The `median` of `rounds` rounds, and the interval from `low` to `high` that holds the true one with `coverage`."""

    median: float
    low: float
    high: float
    rounds: int
    coverage: float

    def words(self, show: str = "{:.3g}") -> str:
        """The interval in words; `show` formats a number."""
        span = f"{show.format(self.low)} to {show.format(self.high)}"
        return f"{span} in {self.rounds} rounds" if self.rounds > 1 else f"{show.format(self.median)} in a single round"


def spread(rounds: Sequence[float]) -> Spread:
    """The median of the rounds and its interval of 95 %, or as much as so few rounds cover.

    Raises `ExerciseError` for no rounds, and for a round that is not finite.
    """
    values = sorted(float(value) for value in rounds)
    if not values or not all(map(math.isfinite, values)):
        raise ExerciseError(f"the rounds {list(rounds)!r} must be one or more finite numbers; one of them was not measured")
    n, k = len(values), 1
    while 2 * (k + 1) <= n and _covered(n, k + 1) >= COVERAGE:
        k += 1
    return Spread(median(values), values[k - 1], values[n - k], n, _covered(n, k) if n > 1 else 0.0)


def below(one: Sequence[float], other: Sequence[float]) -> bool | None:
    """Whether `one` is less than `other`: True or False where the rounds say so, None where they cannot tell.

    As many rounds of both count as pairs, measured one beside the other, and are judged by the interval of their ratio (by
    their difference where a number is 0 or less). Else the two intervals must not overlap.
    """
    if len(one) == len(other):
        positive = all(value > 0 for value in (*one, *other))
        pairs = [a / b if positive else a - b for a, b in zip(one, other, strict=True)]
        found, same = spread(pairs), 1.0 if positive else 0.0
        return True if found.high < same else False if found.low > same else None
    first, second = spread(one), spread(other)
    return True if first.high < second.low else False if first.low > second.high else None


def _covered(n: int, k: int) -> float:
    """How surely the true median lies between the k-th smallest and the k-th largest of n rounds."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / float(2**n)
