"""What a router is worth: quality against cost at every threshold, compared with baselines, with confidence intervals.

Everything here is arithmetic on one table, `Outcomes`, in which both models answered every request. A threshold t keeps a
request with the small model when its score is t or higher; otherwise the request goes up to the large model. A router that
decides *before* the answer pays only the large model for a request that goes up. A *cascade* pays both, because the small
model was asked first. The quality is the same, because the large model's answer is delivered either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.extras import extra
from labkit.request import InvalidValue

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Way = Literal["before", "cascade"]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One row per request, five columns of equal length.

    `score`: higher means that the small model is more likely right. `right_small`, `right_large`: 0 or 1, or a grade in
    between. `cost_small`, `cost_large`: the cost of each answer, both in the same currency. Raises `InvalidValue` for
    columns of different lengths, values that are not finite, grades outside 0 to 1 and costs below 0.
    """

    score: Floats
    right_small: Floats
    right_large: Floats
    cost_small: Floats
    cost_large: Floats

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, np.asarray(getattr(self, f.name), float))
        lengths = {f.name: getattr(self, f.name).shape for f in fields(self)}
        if len(set(lengths.values())) > 1 or self.score.ndim != 1 or not self.score.size:
            raise InvalidValue(f"the columns have the shapes {lengths}; give one number per request in each, at least one")
        for f in fields(self):
            if not np.isfinite(getattr(self, f.name)).all():
                raise InvalidValue(f"{f.name} holds a value that is not finite; leave those requests out of every column")
        for right in (self.right_small, self.right_large):
            if right.min() < 0 or right.max() > 1:
                raise InvalidValue(f"grades run from {right.min()} to {right.max()}; scale them to 0 to 1")
        if min(self.cost_small.min(), self.cost_large.min()) < 0:
            raise InvalidValue("a cost is below 0; costs are 0 or more")

    def __len__(self) -> int:
        return self.score.size

    def take(self, rows: NDArray[np.intp]) -> Outcomes:
        """The outcomes of the requests at the indices `rows`, which may repeat."""
        return Outcomes(*(getattr(self, f.name)[rows] for f in fields(self)))


def frontier(outcomes: Outcomes, way: Way = "before") -> pd.DataFrame:
    """One row for every threshold that makes a difference, from no request sent up to all of them.

    Columns: `threshold` (inf sends all up), `share_large` (share of requests that go up), `quality` (mean grade), `cost`
    (mean per request), `efficient` (no other threshold is at least as good for less, or better for the same cost). Raises
    `InvalidValue` for an unknown `way`.
    """
    with extra("analysis"):
        import pandas as pd  # not above: it takes half a second to import

    if way not in ("before", "cascade"):
        raise InvalidValue(f'a router decides "before" the answer or as a "cascade", not {way!r}')
    order = np.argsort(outcomes.score, kind="stable")
    scores = outcomes.score[order]
    # The k lowest scores go up. Equal scores go up together, so a cut is only possible where the score changes.
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1, [scores.size]])
    gained = _cumulated(outcomes.right_large[order] - outcomes.right_small[order])[cuts]
    paid = outcomes.cost_large[order] - (outcomes.cost_small[order] if way == "before" else 0.0)
    quality = outcomes.right_small.mean() + gained / scores.size
    cost = outcomes.cost_small.mean() + _cumulated(paid)[cuts] / scores.size
    thresholds = np.concatenate([scores[cuts[:-1]], [np.inf]])
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "share_large": cuts / scores.size,
            "quality": quality,
            "cost": cost,
            "efficient": _efficient(quality, cost),
        }
    )


def baselines(outcomes: Outcomes) -> pd.DataFrame:
    """Ways that need no router, and the best that any router could do: columns `quality` and `cost` (means per request).

    Rows: "always small"; "always large"; "best single" (the better of these two, or the cheaper where they are equal);
    "random half" (what a fair coin is expected to give; other shares lie on the straight line between small and large);
    "oracle" (knows the outcomes: for each request the better answer, or the cheaper one where both are equally good).
    """
    with extra("analysis"):
        import pandas as pd

    small = outcomes.right_small.mean(), outcomes.cost_small.mean()
    large = outcomes.right_large.mean(), outcomes.cost_large.mean()
    up = (outcomes.right_large > outcomes.right_small) | (
        (outcomes.right_large == outcomes.right_small) & (outcomes.cost_large < outcomes.cost_small)
    )
    rows = {
        "always small": small,
        "always large": large,
        "best single": max(small, large, key=lambda row: (row[0], -row[1])),
        "random half": ((small[0] + large[0]) / 2, (small[1] + large[1]) / 2),
        "oracle": (
            np.where(up, outcomes.right_large, outcomes.right_small).mean(),
            np.where(up, outcomes.cost_large, outcomes.cost_small).mean(),
        ),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["quality", "cost"])


@dataclass(frozen=True, slots=True)
class CascadeCost:
    """Mean cost per request of a cascade: `expected` by the formula, `measured` on the requests themselves.

    The two differ by the covariance between going up and the large model's cost: hard requests tend to have long answers.
    """

    expected: float
    measured: float


def expected_cascade_cost(cost_small: float, accepted: float, cost_large: float) -> float:
    """c_small + (1 − p) · c_large: the small model is always asked, the large one for the share 1 − `accepted`.

    p is `accepted` (0 to 1); the result is in the currency of the costs. As in FrugalGPT (Chen et al. 2023) for two models.
    A cascade is cheaper than always asking the large model where p > c_small / c_large. Raises `InvalidValue` for costs
    below 0 and for a share outside 0 to 1.
    """
    if not 0 <= accepted <= 1 or cost_small < 0 or cost_large < 0:
        raise InvalidValue(f"costs {cost_small}, {cost_large} and share {accepted}: costs are 0 or more, a share is 0 to 1")
    return cost_small + (1 - accepted) * cost_large


def cascade_cost(outcomes: Outcomes, threshold: float) -> CascadeCost:
    """The mean cost of a cascade at `threshold`: by the formula from three means, and added up request by request."""
    up = outcomes.score < threshold
    expected = expected_cascade_cost(outcomes.cost_small.mean(), 1 - up.mean(), outcomes.cost_large.mean())
    return CascadeCost(float(expected), float((outcomes.cost_small + up * outcomes.cost_large).mean()))


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval from `low` to `high` at `level`, such as 0.95.

    `undefined` is the number of resamples that gave no value (NaN) and were left out.
    """

    estimate: float
    low: float
    high: float
    level: float
    undefined: int = 0


def bootstrap(
    outcomes: Outcomes,
    statistic: Callable[[Outcomes], float],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """A percentile bootstrap interval (Efron 1979) of any number computed from outcomes; the same `seed` repeats it exactly.

    Requests are drawn with all their columns, so a difference between two ways of routing is paired: both ways meet the same
    hard requests, and that shared variation cancels. `statistic` may return NaN where it is undefined. Raises `InvalidValue`
    for fewer than 2 `resamples` and for a `level` that is not between 0 and 1.
    """
    if resamples < 2 or not 0 < level < 1:
        raise InvalidValue(f"{resamples} resamples at level {level}; use at least 2, and a level between 0 and 1")
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(outcomes.take(rng.integers(len(outcomes), size=len(outcomes)))) for _ in range(resamples)])
    known = drawn[~np.isnan(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan, np.nan)
    return Interval(float(statistic(outcomes)), float(low), float(high), level, int(drawn.size - known.size))


def at_threshold(threshold: float, column: Literal["quality", "cost"], way: Way = "before") -> Callable[[Outcomes], float]:
    """A statistic for `bootstrap`: the mean quality or cost when routing at `threshold`."""

    def statistic(outcomes: Outcomes) -> float:
        up = outcomes.score < threshold
        if column == "quality":
            return float(np.where(up, outcomes.right_large, outcomes.right_small).mean())
        small = outcomes.cost_small if way == "cascade" else outcomes.cost_small * ~up
        return float((small + outcomes.cost_large * up).mean())

    return statistic


def _cumulated(values: ArrayLike) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values)])


def _efficient(quality: Floats, cost: Floats) -> NDArray[np.bool_]:
    order = np.lexsort((-quality, cost))  # cheapest first, the best first among equals
    best_so_far = np.concatenate([[-np.inf], np.maximum.accumulate(quality[order])[:-1]])
    found = np.empty(quality.size, bool)
    found[order] = quality[order] > best_so_far
    return found
