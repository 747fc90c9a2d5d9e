"""The SQL of a cache's file: one function for each query and each change.

Functions that write must be called within a transaction. Texts in the file are ASCII; `whole_entry` rejects damaged ones.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labkit.caches.entry import Entry, Ticket, seal, size_of, to_json, to_text, whole_entry
from labkit.caches.rules import Scope
from labkit.caches.stats import Event
from labkit.caches.worth import worth

Mark = tuple[int, int]
"""How far a layer was followed: in which file, and up to which entry of it."""

_TENANT = "state.birth, state.era, state.latest, coalesce(tenants.epoch, 0), coalesce(tenants.changes, 0), state.all_changes"
_STATE = f"SELECT {_TENANT}, state.inflation FROM state LEFT JOIN tenants ON tenants.tenant = ?"
_FIND = f"""
SELECT {_TENANT}, entries.id, entries.tenant, entries.epoch, entries.era, created, lifetime, facts, tags, cost, uses, digest,
  value, entries.id IS NULL AND EXISTS (SELECT 1 FROM entries WHERE layer = ?1 AND key = ?2)
FROM state LEFT JOIN entries ON layer = ?1 AND key = ?2 AND scope = ?3 LEFT JOIN tenants ON tenants.tenant = ?4"""
_INSERT = """
INSERT INTO entries (layer, scope, key, tenant, epoch, era, created, lifetime, expires, facts, tags, cost, uses, priority,
  bytes, digest, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_WHOLE = "scope, key, created, lifetime, facts, tags, cost, uses, digest, value"


@dataclass(frozen=True, slots=True)
class State:
    """The state of the file and of one tenant."""

    birth: int
    era: int
    latest: float
    epoch: int
    changes: int
    all_changes: int

    def ticket(self, era: int | None = None) -> Ticket:
        """A ticket for the tenant's invalidations so far. `era` is given if it is already later than the file's."""
        return Ticket(self.birth, self.epoch, self.changes, self.all_changes, self.era if era is None else era)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry's row as found, before it is checked."""

    row: int
    tenant: str
    epoch: int
    era: int
    created: float
    lifetime: float | None
    rest: tuple[Any, ...]

    def entry(self, connection: sqlite3.Connection, layer: str, scope: Scope, key: str) -> Entry | None:
        """The entry as it was stored; None if it is damaged, or if its tenant or tags, which invalidations use, are."""
        entry = whole_entry(layer, scope, key, self.created, self.lifetime, *self.rest)
        if entry is None or self.tenant != to_text(scope.tenant):
            return None
        if entry.tags:
            tags = [to_text(tag) for tag in entry.tags]
            marks = ", ".join("?" * len(tags))
            found = connection.execute(f"SELECT count(*) FROM tags WHERE tag IN ({marks}) AND entry = ?", (*tags, self.row))
            if found.fetchone()[0] != len(tags):
                return None
        return entry


def state_of(connection: sqlite3.Connection, tenant: str) -> tuple[State, float]:
    """The state of the file for `tenant`, and the worth of the last entry that was evicted."""
    *state, inflation = connection.execute(_STATE, (to_text(tenant),)).fetchone()
    return State(*state), inflation


def find(connection: sqlite3.Connection, layer: str, key: str, scope: Scope) -> tuple[State, Found | None, bool]:
    """The state, the entry's row or None, and, if there is no row, whether another scope has an entry under the key."""
    row = connection.execute(_FIND, (layer, key, scope.to_text(), to_text(scope.tenant))).fetchone()
    state, found, elsewhere = State(*row[:6]), row[6:-1], bool(row[-1])
    if found[0] is None:
        return state, None, elsewhere
    number, tenant, epoch, era, created, lifetime, *rest = found
    return state, Found(number, tenant, epoch, era, created, lifetime, tuple(rest)), False


def insert(connection: sqlite3.Connection, entry: Entry, state: State, inflation: float) -> Counter[Event]:
    """Write `entry`; it replaces the entry that its scope has under its key. Returns the events to count."""
    went: Counter[Event] = Counter()
    scope, size = entry.scope.to_text(), size_of(entry)
    if connection.execute(
        "DELETE FROM entries WHERE layer = ? AND key = ? AND scope = ?", (entry.layer, entry.key, scope)
    ).rowcount:
        went[entry.layer, "replaced", ""] += 1
    facts, tags = to_json(entry.facts), to_json(sorted(entry.tags))
    expires = None if entry.lifetime is None else entry.created + entry.lifetime
    row_id = connection.execute(
        _INSERT,
        (
            entry.layer, scope, entry.key, to_text(entry.scope.tenant), state.epoch, state.era, entry.created,
            entry.lifetime, expires, facts, tags, entry.cost, entry.uses,
            worth(inflation, entry.uses, entry.cost, size), size, seal(entry), entry.value,
        ),
    ).lastrowid  # fmt: skip
    connection.executemany("INSERT INTO tags VALUES (?, ?)", [(to_text(tag), row_id) for tag in entry.tags])
    went[entry.layer, "stores", ""] += 1
    return went


def matching(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[tuple[str, str, str, int]]:
    """(layer, scope, key, bytes) of the entries that satisfy a condition, oldest first."""
    return connection.execute(f"SELECT layer, scope, key, bytes FROM entries WHERE {where} ORDER BY id", values).fetchall()


def remove(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> int:
    """Delete the entries that satisfy a condition; returns their number."""
    return connection.execute(f"DELETE FROM entries WHERE {where}", values).rowcount


def note_change(connection: sqlite3.Connection, tenant: str | None, epoch: int) -> None:
    """Record an invalidation of `tenant`, or of all; `epoch` becomes the tenant's current one if it is later."""
    if tenant is None:
        connection.execute("UPDATE state SET all_changes = all_changes + 1")
        return
    connection.execute(
        "INSERT INTO tenants VALUES (?1, ?2, 1) ON CONFLICT (tenant) DO UPDATE SET changes = changes + 1, "
        "epoch = max(epoch, ?2)",
        (to_text(tenant), epoch),
    )


def followed(connection: sqlite3.Connection, layers: Sequence[str], after: Mark) -> tuple[list[Entry], Mark]:
    """Undamaged entries of `layers` stored since the mark, oldest first, and the next mark, read at one moment."""
    # "+layer" keeps SQLite from using the index on layers, which would read the whole layer instead of only the new ids.
    rows = connection.execute(
        f"SELECT state.birth, last.id, layer, {_WHOLE} FROM state, (SELECT coalesce(max(id), 0) AS id FROM entries) AS last "
        f"LEFT JOIN entries ON +layer IN ({', '.join('?' * len(layers))}) "
        "AND entries.id > CASE WHEN state.birth = ? THEN ? ELSE 0 END ORDER BY entries.id",
        (*layers, *after),
    ).fetchall()
    found = [whole_entry(*rest) for _, _, *rest in rows if rest[0] is not None]
    birth, last = rows[0][:2]
    return [entry for entry in found if entry is not None], (birth, max(after[1], last) if birth == after[0] else last)


def whole(connection: sqlite3.Connection, layer: str, scope: Scope | None) -> list[Entry]:
    """All undamaged entries of a layer, of one scope or of all, oldest first."""
    rows = connection.execute(
        f"SELECT layer, {_WHOLE} FROM entries WHERE layer = ? AND (? IS NULL OR scope = ?) ORDER BY id",
        (layer, *[None if scope is None else scope.to_text()] * 2),
    ).fetchall()
    return [entry for entry in (whole_entry(*row) for row in rows) if entry is not None]
