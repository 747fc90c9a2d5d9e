"""The values that caches exchange: entries, look-ups, removals, and the reasons for a miss or a refusal."""

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
    "unlike", "contrast", "verified", "stopped",
]  # fmt: skip
"""Why a look-up gave no answer.

- "no-cache": the request forbade it.
- "absent": nobody stored an answer.
- "scope": only another scope has one.
- "expired": its lifetime is over.
- "max-age": it is older than this request accepts.
- "facts": it was made from other versions of its facts.
- "epoch": it is from an earlier epoch of its tenant.
- "clock": it is from before the clock stepped back.
- "corrupt": it is damaged.
- "unavailable": the file could not be read.

Only in a semantic layer:

- "unlike": nothing stored is alike enough.
- "contrast": the nearest stored question asks something else.
- "verified": there was a hit, but the engine was asked in order to check it.
- "stopped": there was a hit, but the audit has stopped the cache.
"""
Refusal = Literal["no-store", "too-large", "invalidated", "facts", "clock", "new-file", "unavailable"]
"""Why something was not stored.

- "no-store": the request forbade it, or the answer is not one to keep.
- "too-large": it is larger than the whole cache.
- "invalidated": an invalidation came while it was being computed.
- "facts": a fact changed while it was being computed.
- "clock": the clock stepped back in the meantime.
- "new-file": the file was replaced in the meantime.
- "unavailable": the file could not be written (a full disk).
"""
Versions = Callable[[str], str | None]
"""Gives the current version of the named fact; None if nobody knows it."""


class CacheError(LabError):
    """The cache's file cannot be used, or an invalidation did not happen; the message names the path and the fix."""


class Unavailable(CacheError):
    """The cache's file could not be read or written just now."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The state of a tenant's invalidations when some work began.

    The result of that work is stored only if the state has not changed since. `birth` tells the file from the file that
    replaces it after it was set aside.
    """

    birth: int
    epoch: int
    changes: int
    all_changes: int
    era: int

    @property
    def valid(self) -> bool:
        """Whether the state could be read. Without it nothing can be checked later, so nothing is stored."""
        return self.era >= 0


NO_TICKET = Ticket(-1, -1, -1, -1, -1)
"""The ticket of a file that could not be read: it matches no state."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value with its scope, key, lifetime, facts and tags.

    `created` is in seconds since 1970, `lifetime` in seconds (None: no end), `cost` in any one unit (the same for all
    entries). Raises `InvalidValue` if `value` is not bytes, if `created` is not finite, or if `cost` is not a finite number
    from 0.
    """

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
        for name in ("created", "lifetime", "cost"):  # as floats, because the file gives floats back
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of one look-up in a store: an entry and its age in seconds, or the reason why there is none.

    `ticket` is for the caller who then computes the missing value. `trouble` is the error that kept the file from being
    read. `row` is the entry's place in the file, for `Store.use`.
    """

    entry: Entry | None
    reason: Miss | None = None
    age_s: float | None = None
    ticket: Ticket = NO_TICKET
    trouble: CacheError | None = None
    row: int = -1


@dataclass(frozen=True, slots=True)
class Removal:
    """The entries that an invalidation removes, or would remove with `dry_run`.

    `entries`: each as (layer, scope, key). `bytes`: of all of them together.
    """

    entries: tuple[tuple[str, Scope, str], ...]
    bytes: int
    dry_run: bool


def to_json(value: Any) -> str:
    """`value` as compact JSON with sorted keys: equal values give equal texts."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def to_text(name: str) -> str:
    """A name as a JSON text in ASCII.

    SQLite cannot keep a lone surrogate (from a client's broken JSON), because it has no UTF-8 form.
    """
    return json.dumps(name)


def size_of(entry: Entry) -> int:
    """The entry's bytes, as a cache's limit counts them."""
    texts = (entry.key, entry.scope.to_text(), to_json(entry.facts), to_json(sorted(entry.tags)))
    return len(entry.value) + sum(map(len, texts))


def seal(entry: Entry) -> str:
    """A digest of everything that decides who gets an entry, when, and with which content.

    An entry that was damaged on the disk no longer matches its digest, so it is not believed.
    """
    return digest(
        entry.layer, entry.scope.to_text(), entry.key, repr(entry.created), repr(entry.lifetime),
        to_json(entry.facts), to_json(sorted(entry.tags)), entry.value,
    )  # fmt: skip


def whole_entry(
    layer: str, scope: Scope | str, key: str, created: float, lifetime: float | None, facts: str, tags: str, cost: float,
    uses: int, sealed: str, value: bytes,
) -> Entry | None:  # fmt: skip
    """The entry as it was stored; None if it is damaged. `scope` may be a `Scope` or its text."""
    try:
        scope = scope if isinstance(scope, Scope) else Scope.from_text(scope)
        told, labels = json.loads(facts), frozenset(json.loads(tags))
        entry = Entry(scope, key, value, created, layer, lifetime, told, labels, cost, uses)
        return entry if seal(entry) == sealed else None
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidValue):
        return None
