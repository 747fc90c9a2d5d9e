"""Widely quoted savings beside what a chapter measured: `Claim`, and its verdict, which nobody types in."""

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
    """`text` says `low` to `high`, in `unit`; `measured` was found, by `where`, with its `interval` where there is one.

    A formula claims one number, which it foretold for this very run; `tolerance` is then how far from it, as a share, still
    counts as true. `unless` says when it is otherwise, `source` on which machine, model and date.
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
        for name in ("where", "source", "unless"):
            if not getattr(self, name).strip():
                raise ExerciseError(f"claim {self.id} needs {name}=…: a number without it cannot be judged")

    @property
    def verdict(self) -> str:
        """Whether it holds here, by the interval if there is one: an interval over the claim's edge cannot tell."""
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
    """As the journal keeps it, under the claim's id."""
    return {f.name: getattr(claim, f.name) for f in fields(Claim) if f.name != "id"}


def from_entry(entry: Entry) -> Claim | None:
    """As the journal kept it; None where it is not one that this version understands."""
    kept = {f.name: entry[f.name] for f in fields(Claim) if f.name in entry}
    if isinstance(kept.get("interval"), list):
        kept["interval"] = tuple(kept["interval"])
    try:
        return Claim(id=str(entry["item"]), **kept)
    except (TypeError, ValueError):
        return None
