"""The sums of `Counts` in arrays: for questions that look at every request or conversation, and are estimates anyway.

A bill is added up in exact decimals (`labkit.spending.segments`); here money is a float, to draw samples and to sort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.spending.classes import KINDS, classed
from labkit.spending.factors import Counts
from labkit.spending.slices import Slice

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

_SUMS = (
    "count(DISTINCT keyed) + sum(first)", "count(*)", "sum(class = 'served')", "sum(class IN ('split', 'unsplit'))",
    "sum(class = 'split')",
    *(f"sum(CASE WHEN class = 'split' THEN {of} ELSE 0 END)" for of in ("read", "cached", "written", *KINDS[3:])),
    *(f"sum(CASE WHEN class = 'split' THEN ({of}) * r{kind} ELSE 0 END)" for kind, of in enumerate(KINDS)),
    "sum(CASE WHEN class = 'unsplit' THEN paid ELSE 0 END)",
)  # fmt: skip
WIDTH = len(_SUMS)
"""The columns of `Tallies.table`."""
COSTS = 10
"""The first of those that are money."""


@dataclass(frozen=True, slots=True)
class Tallies:
    """One row for each group: its values (`keys`, a dataframe) and its sums (`table`, floats).

    `table` has the columns of `Counts` from left to right, with the five of `costs` one by one.
    """

    keys: pd.DataFrame
    table: NDArray[np.float64]

    @property
    def cost(self) -> NDArray[np.float64]:
        """What each group paid."""
        paid: NDArray[np.float64] = self.table[:, COSTS:].sum(axis=1)
        return paid

    @property
    def counts(self) -> Counts:
        """The sums as arrays, one element a group."""
        return counts_of([self.table[:, column] for column in range(self.table.shape[1])])


def counts_of(values: Sequence[Any]) -> Counts:
    """`Counts` from the columns of `Tallies.table`."""
    requests, attempts, served, priced, split, read, cached, written, visible, reasoning, *costs, unsplit_cost = values
    return Counts(
        requests, attempts, served, priced, split, read, cached, written, visible, reasoning, tuple(costs), unsplit_cost
    )


def tallies(part: Slice, by: Sequence[str], more: Mapping[str, str]) -> Tallies:
    """The sums of the slice by the dimensions `by` (columns d0, d1, …) and by `more`, which maps names to SQL."""
    import numpy as np

    source = classed(part, by, more)
    groups = ", ".join([*(f"d{index}" for index in range(len(by))), *more])
    frame = part.ledger.frame(
        f"{source.sql}SELECT {groups}, {', '.join(_SUMS)} FROM classed GROUP BY {groups}", source.values
    )
    keys = len(by) + len(more)
    return Tallies(frame.iloc[:, :keys], np.ascontiguousarray(frame.iloc[:, keys:].to_numpy(float)))
