"""Prometheus histograms: cumulative counts of observations up to each of a few bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from labkit.engines.errors import EngineRestarted
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram: `buckets` are (upper bound, observations up to it), and the last bound is infinite.

    The difference of two is the histogram of what was observed between them; it raises `EngineRestarted` where a count fell.
    """

    count: float
    sum: float
    buckets: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float | None:
        """Exact mean of the observations; None without any, and where their sum is not finite."""
        return self.sum / self.count if self.count and math.isfinite(self.sum) else None

    def quantile(self, q: float) -> float | None:
        """Estimate of the `q` quantile, 0 to 1, by linear interpolation within its bucket, as PromQL's histogram_quantile.

        The error is at most the width of that bucket. For a quantile beyond the last finite bound, the result is that bound.
        None without observations. Raises `InvalidValue` for a `q` outside 0 to 1.
        """
        if not 0 <= q <= 1:
            raise InvalidValue(f"quantile {q}: use a value from 0 to 1 (0.95, not 95)")
        if not self.count:
            return None
        rank = q * self.count
        for (low, below), (high, upto) in pairwise(((0.0, 0.0), *self.buckets)):
            if upto >= rank and upto > below:
                return low if math.isinf(high) else low + (high - low) * (rank - below) / (upto - below)
        return max((bound for bound, _ in self.buckets if math.isfinite(bound)), default=None)

    def __sub__(self, before: Histogram) -> Histogram:
        earlier = dict(before.buckets)
        buckets = tuple((bound, upto - earlier.get(bound, 0.0)) for bound, upto in self.buckets)
        if self.count < before.count or any(upto < 0 for _, upto in buckets):
            raise EngineRestarted(
                f"a histogram went from {before.count:g} observations back to {self.count:g}: the engine restarted in "
                "between; take both snapshots of one run"
            )
        return Histogram(self.count - before.count, self.sum - before.sum, buckets)


def merged(series: Sequence[Mapping[float, float]], count: float, total: float) -> Histogram | None:
    """One histogram of several engines or models. `series` holds, for each, its cumulative counts by bound.

    `count` and `total` are the number and the sum of all observations. vLLM derives some bounds from a model's length, so
    bounds may differ; only the bounds that all series share are kept, since the total is known for no other. None without
    any series, and where a count is not finite.
    """
    if not series:
        return None
    bounds = sorted(set[float].intersection(*(set(counts) for counts in series)))
    buckets = tuple((bound, sum(counts[bound] for counts in series)) for bound in bounds)
    if not all(math.isfinite(value) for value in (count, *(upto for _, upto in buckets))):
        return None
    return Histogram(count, total, buckets)
