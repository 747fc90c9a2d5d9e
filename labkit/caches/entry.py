"""What a cache keeps and what it says: entries, look-ups, invalidations, and the reasons for each no."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from labkit.caches.rules import Scope, digest
from labkit.request import InvalidValue, LabError

Miss = Literal[
    "no-cache", "absent", "scope", "expired", "max-age", "facts", "epoch", "clock", "corrupt", "unavailable",
    "unlike", "contrast", "verified",
]  # fmt: skip
"""Why there was no answer: the request forbade it; nobody stored one; only another scope has one; past its lifetime; older
than this request accepts; made from other versions of its facts; from before its tenant's epoch; from before the clock
stepped back; damaged; or the file could not be read. In a semantic layer also: nothing stored is alike enough; what is
alike says something else; or it was asked anew to check the one that would have been given."""
Refusal = Literal["no-store", "too-large", "invalidated", "facts", "clock", "unavailable"]
"""Why something was not stored: the request forbade it, or it is no answer to keep; larger than the whole cache; an
invalidation or a new fact came while it was being computed; the clock stepped back meanwhile; or the file could not be
written (a full disk)."""
Versions = Callable[[str], str | None]
"""The current version of a fact, None when nobody knows."""


class CacheError(LabError):
    """The cache's file cannot be used, or an invalidation did not happen; the message names the path and the fix."""


class Unavailable(CacheError):
    """The cache's file could not be read or written just now."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The state of a tenant's invalidations when some work began; what it brings is stored only if that has not changed.

    `birth` tells the file from the one that takes its place where it is set aside.
    """

    birth: int
    epoch: int
    changes: int
    all_changes: int
    era: int

    @property
    def valid(self) -> bool:
        """Whether the state could be read; what cannot be checked later is not stored."""
        return self.era >= 0


NO_TICKET = Ticket(-1, -1, -1, -1, -1)
"""The ticket of a file that could not be read: it matches nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value with what it belongs to. `created` is in seconds since 1970, `cost` in any one unit (the same for all)."""

    scope: Scope
    key: str
    value: bytes
    created: float
    layer: str = "response"
    lifetime: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    cost: float = 1.0
    uses: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.value, bytes):
            raise InvalidValue(f"an entry's value is bytes, not {type(self.value).__name__}; encode it first")
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise InvalidValue(f"an entry's cost is {self.cost}; use a finite number from 0")
        if not math.isfinite(self.created):
            raise InvalidValue(f"an entry was created at {self.created}; use seconds since 1970")
        for name in ("created", "lifetime", "cost"):  # as the file will give them back
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a look-up came to: an entry and its age in seconds, or the reason why there is none.

    `ticket` is for whoever computes what was not there. `trouble` is what kept the file from being read, `row` the entry's
    place in it, for `Store.use`.
    """

    entry: Entry | None
    reason: Miss | None = None
    age_s: float | None = None
    ticket: Ticket = NO_TICKET
    trouble: CacheError | None = None
    row: int = -1


@dataclass(frozen=True, slots=True)
class Removal:
    """What an invalidation takes away, or would: entries as (layer, scope, key), and their bytes."""

    entries: tuple[tuple[str, Scope, str], ...]
    bytes: int
    dry_run: bool


def to_json(value: Any) -> str:
    """One text for equal values."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def to_text(name: str) -> str:
    """A name as SQLite can keep it: in ASCII, for a lone surrogate (broken JSON from a client) has no UTF-8 form."""
    return json.dumps(name)


def size_of(entry: Entry) -> int:
    """Its bytes, as a cache's limit counts them."""
    texts = (entry.key, entry.scope.to_text(), to_json(entry.facts), to_json(sorted(entry.tags)))
    return len(entry.value) + sum(map(len, texts))


def seal(entry: Entry) -> str:
    """What ties all that decides about an entry together, so that one damaged on the disk is not believed."""
    return digest(
        entry.layer, entry.scope.to_text(), entry.key, repr(entry.created), repr(entry.lifetime),
        to_json(entry.facts), to_json(sorted(entry.tags)), entry.value,
    )  # fmt: skip


def whole_entry(
    layer: str, scope: Scope | str, key: str, created: float, lifetime: float | None, facts: str, tags: str, cost: float,
    uses: int, sealed: str, value: bytes,
) -> Entry | None:  # fmt: skip
    """The entry as it was stored, `scope` as it is or as its text; None where it no longer is."""
    try:
        scope = scope if isinstance(scope, Scope) else Scope.from_text(scope)
        told, labels = json.loads(facts), frozenset(json.loads(tags))
        entry = Entry(scope, key, value, created, layer, lifetime, told, labels, cost, uses)
        return entry if seal(entry) == sealed else None
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidValue):
        return None
