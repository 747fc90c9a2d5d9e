"""One reason why two questions deserve different answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "literal", "symbol", "unit", "name", "negation", "opposite", "qualifier", "order", "exchange", "language", "length"
]


@dataclass(frozen=True, slots=True)
class Difference:
    """A reason why two questions deserve different answers: what kind it is, and the words on either side."""

    kind: Kind
    cached: str
    new: str

    def __str__(self) -> str:
        return f"{self.kind}: “{self.cached or '(nothing)'}” in the cached question, “{self.new or '(nothing)'}” in the new"
