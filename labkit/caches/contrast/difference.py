"""The value that names one reason why two questions deserve different answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "literal", "symbol", "unit", "name", "negation", "opposite", "qualifier", "order", "exchange", "language", "length"
]


@dataclass(frozen=True, slots=True)
class Difference:
    """A reason why two questions deserve different answers: its kind, and the words that differ in each question."""

    kind: Kind
    cached: str
    new: str

    def __str__(self) -> str:
        return f"{self.kind}: “{self.cached or '(nothing)'}” in the cached question, “{self.new or '(nothing)'}” in the new"
