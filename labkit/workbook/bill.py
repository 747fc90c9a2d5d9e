"""The running case's bill: a support portal with 100,000 daily users, and what each chapter's lever takes off it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from labkit.workbook.exercise import ExerciseError
from labkit.workbook.store import Entry


@dataclass(frozen=True, slots=True)
class BillLine:
    """What one part of the bill, named by `of`, costs in USD a month `before` and `after` the `lever` is pulled.

    `source` names the measurements and the prices behind the numbers. Each line is measured with one lever alone, over its
    own part of the bill, so lines do not add up. Raises `ExerciseError` for costs that are not finite or not above 0
    (`after` may be 0), and for an empty text.
    """

    chapter: str
    lever: str
    of: str
    before: float
    after: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.before) and math.isfinite(self.after) and self.before > 0 and self.after >= 0):
            raise ExerciseError(
                f"the bill of chapter {self.chapter} goes from {self.before} to {self.after}; give USD a month, above 0"
            )
        if not (self.lever.strip() and self.of.strip() and self.source.strip()):
            raise ExerciseError(f"a line of the bill of chapter {self.chapter} needs its lever, what it is of, and a source")

    @property
    def saved(self) -> float:
        """Share of that part of the bill that the lever saves; below 0 where the lever costs money."""
        return 1 - self.after / self.before

    @property
    def row(self) -> tuple[str, ...]:
        """The line as texts for a table with the columns of `HEADER`."""
        change = "the same" if abs(self.saved) < 0.0005 else f"{100 * self.saved:.0f} %"
        if self.saved <= -0.0005:
            change = f"costs {-100 * self.saved:.0f} % more"
        return self.chapter, self.lever, self.of, _usd(self.before), _usd(self.after), change


HEADER = ("chapter", "lever", "of the bill", "before (USD a month)", "after", "saved")


def from_entry(entry: Entry) -> BillLine | None:
    """The line that the journal kept; None for an entry that this version does not understand."""
    try:
        return BillLine(**{f.name: entry[f.name] for f in fields(BillLine)})
    except (KeyError, TypeError, ValueError):
        return None


def _usd(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:,.2f}"
