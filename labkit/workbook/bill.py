"""The running case's bill: a support portal with 100,000 daily users, and what each chapter's lever takes off it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from labkit.workbook.exercise import ExerciseError
from labkit.workbook.store import Entry


@dataclass(frozen=True, slots=True)
class BillLine:
    """What a part of the bill (`of`) comes to in USD a month, `before` and `after` pulling the `lever`.

    `source`: the measurements and the prices behind it. Lines are measured one lever at a time, over different parts of the
    bill: they do not add up.
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
        """Share of that part of the bill that is saved; below 0 where the lever costs money."""
        return 1 - self.after / self.before

    @property
    def row(self) -> tuple[str, ...]:
        """For a table: chapter, lever, of, before, after, saved."""
        change = "the same" if abs(self.saved) < 0.0005 else f"{100 * self.saved:.0f} %"
        if self.saved <= -0.0005:
            change = f"costs {-100 * self.saved:.0f} % more"
        return self.chapter, self.lever, self.of, _usd(self.before), _usd(self.after), change


HEADER = ("chapter", "lever", "of the bill", "before (USD a month)", "after", "saved")


def from_entry(entry: Entry) -> BillLine | None:
    """As the journal kept it, field by field; None where it is not one that this version understands."""
    try:
        return BillLine(**{f.name: entry[f.name] for f in fields(BillLine)})
    except (KeyError, TypeError, ValueError):
        return None


def _usd(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:,.2f}"
