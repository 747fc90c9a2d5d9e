"""Widely quoted savings beside what a chapter measured. A `Claim` computes its verdict from the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from labkit.workbook.exercise import ExerciseError
from labkit.workbook.prediction import number_text
from labkit.workbook.store import Entry

HOLDS, MORE, LESS, OPEN = "holds here", "more than claimed", "less than claimed", "cannot tell"


@dataclass(frozen=True, slots=True)
class Claim:
    """A quoted claim, and the number that a chapter measured for it.

    `text` claims `low` to `high`, in `unit`. `measured` is the number found, with its confidence `interval` (low, high) if
    there is one; `where` says on what it was measured. `by` names who claims it (title, year, where), or says that no source
    was found. A formula claims one number, its forecast for this run; `tolerance`
    is then how far off the forecast may be, as a share, and still count as true. `unless` says when the claim turns out
    otherwise; `source` names the machine, model and date. Raises `ExerciseError` for numbers that are not finite or do not
    fit together, and for an empty `where`, `unless`, `source` or `by`.
    """

    id: str
    text: str
    low: float
    high: float
    measured: float
    unit: str
    where: str
    unless: str
    source: str
    by: str
    interval: tuple[float, float] | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        numbers = {"low": self.low, "high": self.high, "measured": self.measured, "tolerance": self.tolerance}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise ExerciseError(f"claim {self.id}: {name} is {value}; give a finite number, or it was not measured")
        if self.low > self.high or self.tolerance < 0:
            raise ExerciseError(
                f"claim {self.id} says {self.low} to {self.high} with tolerance {self.tolerance}; say the smaller number "
                "first, and a tolerance from 0"
            )
        if self.interval is not None and not self.interval[0] <= self.measured <= self.interval[1]:
            raise ExerciseError(f"claim {self.id}: {self.measured} is outside its own interval {self.interval}")
        for name in ("where", "unless", "source", "by"):
            if not getattr(self, name).strip():
                raise ExerciseError(f"claim {self.id} needs {name}=…: a number without it cannot be judged")

    @property
    def verdict(self) -> str:
        """Whether the claim holds here, judged by the interval if there is one.

        The verdict is `HOLDS` inside the claimed range, `MORE` above it and `LESS` below it. It is `OPEN` when the interval
        reaches over an edge of the range.
        """
        low, high = self.low - self.tolerance * abs(self.low), self.high + self.tolerance * abs(self.high)
        least, most = self.interval or (self.measured, self.measured)
        if low <= least and most <= high:
            return HOLDS
        if least > high:
            return MORE
        return LESS if most < low else OPEN

    @property
    def claimed(self) -> str:
        """The claim's number or numbers, with the unit."""
        span = number_text(self.low) if self.low == self.high else f"{number_text(self.low)} to {number_text(self.high)}"
        return f"{span} {self.unit}".strip()

    @property
    def found(self) -> str:
        """What was measured, with its interval."""
        span = "" if self.interval is None else f" ({' to '.join(number_text(v) for v in self.interval)})"
        return f"{number_text(self.measured)} {self.unit}".strip() + span


def to_fields(claim: Claim) -> dict[str, Any]:
    """The claim's fields as the journal keeps them; its id is the journal's item."""
    return {f.name: getattr(claim, f.name) for f in fields(Claim) if f.name != "id"}


def from_entry(entry: Entry) -> Claim | None:
    """The claim that the journal kept; None for an entry that this version does not understand."""
    kept = {f.name: entry[f.name] for f in fields(Claim) if f.name in entry}
    if isinstance(kept.get("interval"), list):
        kept["interval"] = tuple(kept["interval"])
    try:
        return Claim(id=str(entry["item"]), **kept)
    except (TypeError, ValueError):
        return None
