"""How far the parts of a changed bill would move, had other conversations of the same kind come: a cluster bootstrap.

The calls of one conversation are alike (its history grows, its prompt stays), so that a thousand calls of ten conversations
tell no more than about ten. So whole conversations are drawn, each as often as a Poisson number of mean 1 says, in both
periods alike where it is in both; the parts are computed anew from what was drawn. The number of conversations varies, too,
as it does from day to day by chance alone.

Sources: Efron, "Bootstrap methods", 1979 (percentile intervals); Field and Welsh, "Bootstrapping clustered data", 2007;
Chamandy et al., "Estimating uncertainty for massive data streams", 2012 (Poisson draws).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, get_args

from labkit.extras import extra
from labkit.request import InvalidValue
from labkit.spending.factors import FACTORS, Counts
from labkit.spending.parts import drawn_parts
from labkit.spending.slices import DIMENSIONS, Slice
from labkit.spending.tallies import COSTS, WIDTH, counts_of, tallies

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

Cluster = Literal["request", "workflow", "user", "organisation"]
FEWEST = 20
"""Fewer clusters than this are too few to draw from."""
_AT_ONCE = 4_000_000
Range = tuple[Decimal, Decimal]


@dataclass(frozen=True)
class Intervals:
    """Where the numbers of an `Explanation` lie with probability `level`, from `draws` samples of whole clusters.

    `parts` has a range for each of `FACTORS`; `difference` is that of the bill, and `per_request` that of what a request
    costs on average, whatever their number. `clusters` counts those of each period.
    """

    cluster: Cluster
    clusters: tuple[int, int]
    level: float
    draws: int
    difference: Range
    per_request: Range
    parts: Mapping[str, Range]


def draw(
    slices: tuple[Slice, Slice], by: tuple[str, ...], cluster: Cluster, draws: int, level: float, seed: int, places: int
) -> Intervals:
    """The intervals of the parts of the difference between two slices; see `Explanation.intervals`."""
    if cluster not in get_args(Cluster):
        raise InvalidValue(f"cluster is {cluster!r}; use one of {', '.join(get_args(Cluster))}")
    if draws < 2 or not 0 < level < 1:
        raise InvalidValue(f"{draws} draws at level {level}; use at least 2, and a level between 0 and 1")
    with extra("analysis"):
        import numpy as np

    periods = _periods(slices, by, cluster)
    for name, period in zip(("before", "after"), periods, strict=True):
        if 0 < period.clusters < FEWEST:
            raise InvalidValue(
                f"there are {period.clusters} clusters ({cluster}) {name}, and an interval needs {FEWEST}; take a longer "
                "period, or smaller clusters where these are independent of one another"
            )
    before, after = periods
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.float64]] = []
    at_once = max(1, _AT_ONCE // max(1, before.sums.shape[0], 50 * before.segments))
    for first in range(0, draws, at_once):
        weights = rng.poisson(1.0, (min(at_once, draws - first), before.sums.shape[0])).astype(float)
        (was, old_cost, old_total), (now, new_cost, new_total) = before.drawn(weights), after.drawn(weights)
        parts = drawn_parts(was, now, (old_total[:, None], new_total[:, None]))
        each = _mean(new_cost, new_total) - _mean(old_cost, old_total)
        kept.append(np.stack([new_cost - old_cost, each, *(part.sum(axis=1) for part in parts)]))
    tail = (1 - level) / 2
    lows, highs = np.quantile(np.concatenate(kept, axis=1), [tail, 1 - tail], axis=1)
    difference, per_request, *ranges = [
        (_money(low, digits), _money(high, digits))
        for low, high, digits in zip(lows, highs, [places, places + 4, *(places for _ in FACTORS)], strict=True)
    ]
    clusters, parts_of = (before.clusters, after.clusters), dict(zip(FACTORS, ranges, strict=True))
    return Intervals(cluster, clusters, level, draws, difference, per_request, parts_of)


@dataclass(frozen=True)
class _Period:
    """The sums of each cluster (rows; all of both periods) and segment (16 columns each), and its requests."""

    sums: csr_array
    requests: NDArray[np.float64]
    segments: int
    clusters: int

    def drawn(self, weights: NDArray[np.float64]) -> tuple[Counts, NDArray[np.float64], NDArray[np.float64]]:
        """For each draw: the counts of its segments, its cost, and its requests."""
        import numpy as np

        table = np.asarray(weights @ self.sums).reshape(len(weights), self.segments, WIDTH)
        counts = counts_of([table[:, :, column] for column in range(WIDTH)])
        return counts, table[:, :, COSTS:].sum(axis=(1, 2)), weights @ self.requests


def _periods(slices: tuple[Slice, Slice], by: tuple[str, ...], cluster: Cluster) -> tuple[_Period, _Period]:
    import numpy as np
    from scipy.sparse import csr_array

    whose = DIMENSIONS[cluster]
    more = {
        "whose": DIMENSIONS["organisation"],
        "cluster": f"CASE WHEN {whose} <> '' THEN 'c' || {whose} ELSE 'r' || {DIMENSIONS['request']} END",
    }
    split, whole = [tallies(part, by, more) for part in slices], [tallies(part, (), more) for part in slices]
    owners = _codes([one.keys[["whose", "cluster"]] for one in (*split, *whole)])
    places = _codes([one.keys.drop(columns=["whose", "cluster"]) for one in split])
    members, segments = (1 + max(int(codes.max(initial=-1)) for codes in of) for of in (owners, places))
    found = []
    for of_split, of_whole, owner, place, owner_of_whole in zip(split, whole, owners[:2], places, owners[2:], strict=True):
        table = of_split.table.copy()
        unknown = np.bincount(place, table[:, 0], segments) == 0  # no first attempt is known: as in the bill itself
        table[:, 0] = np.where(unknown[place], table[:, 1], table[:, 0])
        requests = of_whole.table[:, 0 if of_whole.table[:, 0].any() else 1]
        cells = (np.repeat(owner, WIDTH), (place[:, None] * WIDTH + np.arange(WIDTH)).ravel())
        sums = csr_array((table.ravel(), cells), (members, segments * WIDTH))
        found.append(
            _Period(sums, np.bincount(owner_of_whole, requests, members).astype(float), segments, len(of_whole.table))
        )
    return found[0], found[1]


def _codes(frames: Sequence[pd.DataFrame]) -> list[NDArray[np.int64]]:
    """A number from 0 for each row of `frames`, equal where all its values are; one for all where there are no columns."""
    import numpy as np
    import pandas as pd

    ends = np.cumsum([len(frame) for frame in frames])
    together = pd.concat(frames, ignore_index=True)
    if together.shape[1]:
        codes = together.groupby(list(together.columns), sort=False, dropna=False).ngroup().to_numpy()
    else:
        codes = np.zeros(len(together), int)
    return np.split(codes, ends[:-1])


def _mean(cost: NDArray[np.float64], requests: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cost of a request; 0 where there are none."""
    import numpy as np

    return np.divide(cost, requests, out=np.zeros_like(cost), where=requests > 0)


def _money(amount: float, places: int) -> Decimal:
    return Decimal(f"{amount:.{places}f}") + 0  # which makes of -0.00 just 0.00
