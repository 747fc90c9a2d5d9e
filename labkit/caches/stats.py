"""Counts of what a store did: look-ups, misses by reason, and entries stored and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from labkit.sqlite import ProcessLock

Event = tuple[str, str, str]
"""A layer, what happened there ("hits", "miss", "stores", …), and the reason if there are several."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What this `Store` object did since it was opened, in one layer or in all.

    `looked_up` = `hits` + all of `misses`. If no other object uses the file, and the file was empty at first, the number of
    entries in it is

        stores − replaced − evicted − expired − deleted − dropped

    `expired` counts entries that were past their lifetime when room was needed; `dropped` counts entries that were damaged.
    """

    hits: int
    misses: Mapping[str, int]
    stores: int
    replaced: int
    refused: Mapping[str, int]
    evicted: int
    expired: int
    deleted: int
    dropped: int

    @property
    def looked_up(self) -> int:
        """Look-ups: hits and misses together."""
        return self.hits + sum(self.misses.values())

    @property
    def hit_rate(self) -> float | None:
        """Hits per look-up; None before the first."""
        return self.hits / self.looked_up if self.looked_up else None


class Counts:
    """Counters of events by layer. Threads may share it."""

    def __init__(self) -> None:
        self._counts: Counter[Event] = Counter()
        self._lock = ProcessLock()

    def add(self, events: Mapping[Event, int]) -> None:
        """Count events that have happened."""
        with self._lock.mine():
            self._counts.update(events)

    def one(self, layer: str, what: str, detail: str = "") -> None:
        """Count one event."""
        self.add({(layer, what, detail): 1})

    def layers(self) -> tuple[str, ...]:
        """The layers that have any event, in alphabetical order."""
        with self._lock.mine():
            return tuple(sorted({layer for layer, _, _ in self._counts}))

    def stats(self, layer: str | None) -> Stats:
        """The counts of `layer`, or of all layers together."""

        def by_detail(kind: str) -> dict[str, int]:
            found: Counter[str] = Counter()
            for (of, what, detail), number in counts.items():
                if what == kind and layer in (None, of):
                    found[detail] += number
            return dict(found)

        with self._lock.mine():
            counts = dict(self._counts)
        total = {kind: sum(by_detail(kind).values()) for kind in _TOTALS}
        return Stats(misses=by_detail("miss"), refused=by_detail("refused"), **total)


_TOTALS = ("hits", "stores", "replaced", "evicted", "expired", "deleted", "dropped")
