"""Learning from live traffic: choosing thresholds by Thompson sampling, and detecting drift of the traffic mix.

A/B tests with a stopping rule are in `sequential`, shadow traffic in `shadow`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.extras import extra
from labkit.request import InvalidValue


def utility(right: float, cost: float, *, worth: float, cost_max: float) -> float:
    """The worth of an answer minus its cost, scaled to 0 … 1: (`worth` · right − cost + cost_max) / (worth + cost_max).

    `worth` is what a right answer brings and `cost_max` is the most that an answer costs, both in the currency of `cost`;
    `right` is 0 to 1. Raises `InvalidValue` for numbers outside these ranges.
    """
    if not worth > 0 or not cost_max > 0 or not 0 <= cost <= cost_max or not 0 <= right <= 1:
        raise InvalidValue(
            f"right {right}, cost {cost}, worth {worth}, cost_max {cost_max}: worth and cost_max are above 0, right is 0 to "
            "1 and the cost at most cost_max"
        )
    return (worth * right - cost + cost_max) / (worth + cost_max)


class Thompson:
    """Thompson sampling over a finite set of thresholds: each is tried as often as it is likely to be the best.

    Each threshold has a Beta(1, 1) prior on its mean utility; a utility u in 0 … 1 adds u to the first parameter and 1 − u
    to the second. This is exact where utilities are 0 or 1. Utilities in between vary less than a coin of the same mean, so
    the posterior is wider than it need be, and the sampling explores a little too long, never too little. Raises
    `InvalidValue` for thresholds that are missing, repeated or outside 0 to 1.
    """

    def __init__(self, thresholds: Sequence[float], seed: int = 0) -> None:
        if not thresholds or len(set(thresholds)) < len(thresholds) or not all(0 <= t <= 1 for t in thresholds):
            raise InvalidValue(f"thresholds are {tuple(thresholds)}; give different values from 0 to 1, at least one")
        self._arms = {threshold: (1.0, 1.0) for threshold in thresholds}
        self._rng = np.random.default_rng(seed)

    def choose(self) -> float:
        """The threshold for the next request: the one with the highest of one draw from each posterior."""
        return max(self._arms, key=lambda threshold: self._rng.beta(*self._arms[threshold]))

    def learn(self, threshold: float, gained: float) -> None:
        """Record that a request routed at `threshold` had a utility of `gained` (0 to 1, else `InvalidValue`)."""
        if threshold not in self._arms:
            raise InvalidValue(f"threshold {threshold} is not one of {tuple(self._arms)}")
        if not 0 <= gained <= 1:
            raise InvalidValue(f"a utility of {gained}; scale it to 0 to 1 with `utility`")
        a, b = self._arms[threshold]
        self._arms[threshold] = a + gained, b + 1 - gained

    @property
    def means(self) -> dict[float, float]:
        """The posterior mean utility of each threshold, 0 to 1; 0.5 before its first request."""
        return {threshold: a / (a + b) for threshold, (a, b) in self._arms.items()}

    @property
    def tries(self) -> dict[float, float]:
        """How many requests each threshold has had."""
        return {threshold: a + b - 2 for threshold, (a, b) in self._arms.items()}


def psi(before: Mapping[Hashable, int], after: Mapping[Hashable, int]) -> float:
    """Population stability index of two mixes: Σ (q − p) · ln(q / p) over kinds, p and q their shares before and after.

    `before` and `after` map each kind to its number of requests. Half a request is added to every kind, so that a kind seen
    on one side only does not make the index infinite. The usual reading, from credit scoring: below 0.1 the mix is stable,
    above 0.25 it has moved. The index makes no allowance for chance: between samples of n and m requests of one mix with k
    kinds it is about (k − 1)·(1/n + 1/m), so small samples always look moved. `drift` tests for that. Raises `InvalidValue`
    for a side without requests and for counts below 0.
    """
    kinds = sorted({*before, *after}, key=repr)
    counts = np.array([[mix.get(kind, 0) for kind in kinds] for mix in (before, after)], float)
    if not kinds or counts.min() < 0 or (counts.sum(axis=1) <= 0).any():
        raise InvalidValue(f"counts are {dict(before)} and {dict(after)}; both need requests, and no count is below 0")
    p, q = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    return float(((q - p) * np.log(q / p)).sum())


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the mix has moved (`psi`), and how likely chance alone is to move it as far (`p_value`).

    `moved` is true where the mix moved far enough to matter and too far for chance. `kind` is the kind whose share changed
    most, by `change` (−1 to 1).
    """

    psi: float
    p_value: float
    moved: bool
    kind: Hashable
    change: float


def drift(
    before: Iterable[Hashable], after: Iterable[Hashable], *, alpha: float = 0.01, matters: float = 0.1, seed: int = 0
) -> Drift:
    """Whether the mix of kinds (task families, features, languages) has drifted between two samples of requests.

    The test is Pearson's χ² test of homogeneity at level `alpha`. Where a cell expects fewer than 5 requests, the χ²
    distribution is a poor approximation, and the p-value comes from 9,999 random tables with the same totals instead
    (`seed`). `matters` is the PSI from which a drift is worth a new calibration. One test a day at `alpha` raises
    `alpha` × 365 false alarms a year. Raises `InvalidValue` for a sample without requests.
    """
    with extra("analysis"):
        from scipy.stats import MonteCarloMethod, chi2_contingency  # not above: it takes a second to import

    then, now = Counter(before), Counter(after)
    found = psi(then, now)
    kinds = sorted({*then, *now}, key=repr)
    table = np.array([[mix[kind] for kind in kinds] for mix in (then, now)])
    shares = table / table.sum(axis=1, keepdims=True)
    most = int(np.abs(shares[1] - shares[0]).argmax())
    p_value = 1.0
    if len(kinds) > 1:
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        method = MonteCarloMethod(rng=np.random.default_rng(seed)) if expected.min() < 5 else None
        p_value = float(chi2_contingency(table, correction=False, method=method).pvalue)
    return Drift(found, p_value, found >= matters and p_value < alpha, kinds[most], float(shares[1, most] - shares[0, most]))
