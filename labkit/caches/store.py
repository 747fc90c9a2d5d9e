"""The one store under every cache of this room: an SQLite file of entries that knows scope, freshness and worth.

**Never a wrong answer.** An entry is handed out only to an equal scope, within its lifetime, with the facts it was made
from unchanged, in its tenant's current epoch, and whole (each carries a digest of its own content). Whatever cannot be
decided is a miss. Work that began before an invalidation cannot be stored after it: `put` wants the `Ticket` taken first.

**Clocks that step back.** An age cannot be told once a clock has gone back, so the store keeps the latest time it has
seen; a time more than `clock_slack_s` before it starts a new *era*, and entries of older eras miss for good. Times behind
by less (two tasks that read the clock in one order and arrive in the other) count as the latest time seen. A step back
that is over before the store is next used cannot be seen; entries then live longer by that step.

**Worth.** Over `limit_bytes`, what has expired goes first, then GreedyDual-Size-Frequency (L. Cherkasova, "Improving WWW
proxies performance with GreedyDual-Size-Frequency caching policy", HP Labs HPL-98-69R1, 1998): the entry with the
smallest

    H = L + F × C / S

goes, where F counts its uses (storing it is the first), C is what computing it cost, S its bytes, and L, the age of the
cache, is the H of the last one that went. L is added when an entry is stored or used, so that unused ones sink.

**Durability.** Puts commit to a write-ahead log without waiting for the disk: they survive `kill -9`, and a power cut at
worst forgets some (a miss). Invalidations wait for the disk (`synchronous=FULL`), because forgetting one would be a wrong
answer. A full or failing disk never fails a request: `get` misses, `put` does not store, both are counted. An
*invalidation* that fails raises.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock

from labkit.caches.rules import CacheControl, Scope, digest
from labkit.request import InvalidRequest, LabError

SCHEMA_VERSION = 2
_APPLICATION_ID = 0x1AB_CAC4E  # "lab cache": how a cache is told from any other SQLite file
_SQLITE_INTEGER = 2**63 - 1
_PENDING_USES = 256
_log = logging.getLogger(__name__)

Miss = Literal[
    "no-cache", "absent", "scope", "expired", "max-age", "facts", "epoch", "clock", "corrupt", "unavailable",
    "unlike", "contrast", "verified",
]  # fmt: skip
"""Why there was no answer: the request forbade it; nobody stored one; only another scope has one; past its lifetime; older
than this request accepts; made from other versions of its facts; from before its tenant's epoch; from before the clock
stepped back; damaged; or the file could not be read. In a semantic layer also: nothing stored is alike enough; what is
alike says something else; or it was asked anew to check the one that would have been given."""
Refusal = Literal["no-store", "too-large", "invalidated", "facts", "clock", "unavailable"]
"""Why something was not stored: the request forbade it; larger than the whole cache; an invalidation or a new fact came
while it was being computed; the clock stepped back meanwhile; or the file could not be written (a full disk)."""
Versions = Callable[[str], str | None]
"""The current version of a fact, None when nobody knows."""


class CacheError(LabError):
    """The cache's file cannot be used, or an invalidation did not happen; the message names the path and the fix."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The state of a tenant's invalidations when some work began; what it brings is stored only if that has not changed."""

    epoch: int
    changes: int
    all_changes: int
    era: int


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
            raise InvalidRequest(f"an entry's value is bytes, not {type(self.value).__name__}; encode it first")
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise InvalidRequest(f"an entry's cost is {self.cost}; use a finite number from 0")
        if not math.isfinite(self.created):
            raise InvalidRequest(f"an entry was created at {self.created}; use seconds since 1970")
        for name in ("created", "lifetime", "cost"):  # as the file will give them back
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a look-up came to: an entry and its age in seconds, or the reason why there is none."""

    entry: Entry | None
    reason: Miss | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What an invalidation takes away, or would: entries as (layer, scope, key), and their bytes."""

    entries: tuple[tuple[str, Scope, str], ...]
    bytes: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """What this `Store` object did since it was opened, in one layer or in all.

    `looked_up` = `hits` + all of `misses`. What it put in and what went out again balance: `stores` − `replaced` −
    `evicted` − `expired` − `deleted` − `dropped` is what is left of it. `expired` entries made room before they were
    evicted; `dropped` ones were damaged.
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
        """Look-ups, hits and misses together."""
        return self.hits + sum(self.misses.values())

    @property
    def hit_rate(self) -> float | None:
        """Hits per look-up; None before the first."""
        return self.hits / self.looked_up if self.looked_up else None


_SCHEMA = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT, layer TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL,
        tenant TEXT NOT NULL, epoch INTEGER NOT NULL, era INTEGER NOT NULL, created REAL NOT NULL, lifetime REAL,
        expires REAL, facts TEXT NOT NULL, tags TEXT NOT NULL, cost REAL NOT NULL, uses INTEGER NOT NULL,
        priority REAL NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL, value BLOB NOT NULL,
        UNIQUE (layer, key, scope)) STRICT""",
    "CREATE INDEX entries_by_worth ON entries (priority, id)",
    "CREATE INDEX entries_by_expiry ON entries (expires) WHERE expires IS NOT NULL",
    "CREATE INDEX entries_by_tenant ON entries (tenant, epoch)",
    "CREATE INDEX entries_by_key ON entries (key)",
    "CREATE TABLE tags (tag TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) STRICT, WITHOUT ROWID",
    "CREATE INDEX tags_by_entry ON tags (entry)",
    "CREATE TABLE tenants (tenant TEXT PRIMARY KEY, epoch INTEGER NOT NULL, changes INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
        inflation REAL NOT NULL, era INTEGER NOT NULL, latest REAL NOT NULL, all_changes INTEGER NOT NULL) STRICT""",
    "INSERT INTO state VALUES (1, 0, 0, 0.0, 0, -1e300, 0)",
    """CREATE TRIGGER counted_in AFTER INSERT ON entries BEGIN
        UPDATE state SET entries = entries + 1, bytes = bytes + NEW.bytes; END""",
    """CREATE TRIGGER counted_out AFTER DELETE ON entries BEGIN
        UPDATE state SET entries = entries - 1, bytes = bytes - OLD.bytes; DELETE FROM tags WHERE entry = OLD.id; END""",
)
_SELECT = """
SELECT state.era, state.latest, coalesce(tenants.epoch, 0), entries.id, entries.epoch, entries.era, created, lifetime, facts,
  tags, cost, uses, digest, value
FROM state LEFT JOIN entries ON layer = ? AND key = ? AND scope = ? LEFT JOIN tenants ON tenants.tenant = ?"""
_INSERT = """
INSERT INTO entries (layer, scope, key, tenant, epoch, era, created, lifetime, expires, facts, tags, cost, uses, priority,
  bytes, digest, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Store:
    """A cache in the file at `path`, or in this process only (":memory:"), of at most `limit_bytes` of entries.

    Bytes are counted over values, keys, scopes, tags and facts; the file is a little larger. `versions` tells the current
    version of a fact: an entry made from facts is a hit only while each still has the version it was made from, so without
    `versions` entries with facts never hit. Use as a context manager, or `close()`. Threads may share one `Store`,
    processes of one machine one file.

    A damaged file, or one with an older schema, is set aside under a name that says so, and an empty one is started with a
    warning in the log: a cache holds nothing that cannot be computed again. With `set_aside=False`, and for a newer
    schema or a file that is no cache of ours, which is never touched, `CacheError` is raised.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        limit_bytes: int = 256 * 2**20,
        versions: Versions | None = None,
        clock_slack_s: float = 1.0,
        busy_timeout: float = 5.0,
        set_aside: bool = True,
    ) -> None:
        if limit_bytes < 1:
            raise InvalidRequest(f"limit_bytes is {limit_bytes}; give the cache some room")
        if not (math.isfinite(clock_slack_s) and clock_slack_s >= 0):
            raise InvalidRequest(f"clock_slack_s is {clock_slack_s}; use seconds from 0")
        self.in_memory = os.fspath(path) == ":memory:"
        self.path = ":memory:" if self.in_memory else str(Path(path).absolute())
        self.limit_bytes = limit_bytes
        self._versions = versions
        self._slack = clock_slack_s
        self._busy_timeout = busy_timeout
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._inherited: list[sqlite3.Connection | None] = []
        self._latest = -math.inf
        self._uses: Counter[int] = Counter()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._warned = False
        self._connection: sqlite3.Connection | None = self._open(set_aside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __len__(self) -> int:
        with self._reading() as connection:
            return int(connection.execute("SELECT entries FROM state").fetchone()[0])

    @property
    def bytes(self) -> int:
        """Bytes of all entries, those that have expired but not yet made room included."""
        with self._reading() as connection:
            return int(connection.execute("SELECT bytes FROM state").fetchone()[0])

    def close(self) -> None:
        """Close the file; closing again does nothing, using it afterwards raises `CacheError`."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                with suppress(sqlite3.Error, CacheError), self._writing() as connection:
                    self._note_uses(connection)
                    connection.execute("UPDATE state SET latest = max(latest, ?)", (max(self._latest, -1e300),))
                self._connection.close()
            self._connection = None

    def ticket(self, scope: Scope) -> Ticket:
        """Take this *before* computing what `put` will store, so that an invalidation meanwhile is not undone by it."""
        try:
            with self._reading() as connection:
                row = connection.execute(
                    "SELECT coalesce(tenants.epoch, 0), coalesce(changes, 0), all_changes, era "
                    "FROM state LEFT JOIN tenants ON tenant = ?",
                    (_text(scope.tenant),),
                ).fetchone()
        except sqlite3.Error as error:
            self._trouble(error)
            return Ticket(-1, -1, -1, -1)  # matches nothing: what cannot be checked is not stored
        return Ticket(*row)

    def get(
        self,
        scope: Scope,
        key: str,
        now: float,
        control: CacheControl | None = None,
        *,
        layer: str = "response",
        count: bool = True,
    ) -> Lookup:
        """The entry under `key` that `scope` may see at `now` (seconds since 1970), or why there is none.

        `count=False` leaves it out of the accounts and of the entry's uses: a look, not a use.
        """
        if not math.isfinite(now):
            raise InvalidRequest(f"the time is {now}; use seconds since 1970")
        control = control or CacheControl()
        if control.no_cache:
            return self._counted(Lookup(None, "no-cache"), layer, count)
        try:
            with self._reading() as connection:
                found = self._look(connection, scope, key, now, control, layer, count)
        except sqlite3.Error as error:
            self._trouble(error)
            found = Lookup(None, "unavailable")
        return self._counted(found, layer, count)

    def put(self, entry: Entry, ticket: Ticket, *, now: float | None = None) -> Refusal | None:
        """Store `entry`, replacing the one its scope has under its key; None, or why it was not stored.

        `now` is the current time in seconds since 1970, `entry.created` unless given (an entry may be older than that).
        """
        now = entry.created if now is None else now
        refusal: Refusal | None
        size = _bytes(entry)
        if ticket.era < 0:
            refusal = "unavailable"
        elif size > self.limit_bytes:
            refusal = "too-large"
        elif not self._facts_hold(entry.facts):
            refusal = "facts"
        else:
            try:
                with self._writing() as connection:
                    refusal, went = self._put(connection, entry, ticket, now, size)
                self._counts.update(went)  # counted once the commit is through, or the accounts would not balance
            except sqlite3.Error as error:
                self._trouble(error)
                refusal = "unavailable"
        if refusal is not None:
            self._counts[entry.layer, "refused", refusal] += 1
        return refusal

    def refuse(self, layer: str, reason: Refusal) -> None:
        """Count something that its owner did not even try to store ("no-store")."""
        self._counts[layer, "refused", reason] += 1

    def delete(
        self,
        *,
        key: str | None = None,
        tag: str | None = None,
        tenant: str | None = None,
        layer: str | None = None,
        before_epoch: int | None = None,
        dry_run: bool = True,
    ) -> Removal:
        """What matches *all* that is given: looked at, and with `dry_run=False` removed for good once this returns.

        `before_epoch` (with `tenant`) takes the entries of that tenant's earlier epochs and makes it the current one if it
        is later. Work under way when an invalidation happens is not stored afterwards, for that tenant or, where no
        `tenant` is given, for any. Raises `CacheError` when it did not happen, `InvalidRequest` when nothing is given.
        """
        given: list[tuple[str, object]] = []
        if key is not None:
            given.append(("key = ?", key))
        if tag is not None:
            given.append(("id IN (SELECT entry FROM tags WHERE tag = ?)", _text(tag)))
        if tenant is not None:
            given.append(("tenant = ?", _text(tenant)))
        if layer is not None:
            given.append(("layer = ?", layer))
        if before_epoch is not None:
            if tenant is None or not 0 <= before_epoch <= _SQLITE_INTEGER:
                raise InvalidRequest(f"before_epoch={before_epoch} needs a tenant and a whole number from 0")
            given.append(("epoch < ?", before_epoch))
        if not given:
            raise InvalidRequest("say what to delete: key, tag, tenant, layer or before_epoch; nothing was given")
        return self._delete(given, tenant, before_epoch or 0, dry_run)

    def _delete(
        self,
        given: list[tuple[str, object]],
        tenant: str | None,
        epoch: int,
        dry_run: bool,
        next_epoch: bool = False,
    ) -> Removal:
        where = " AND ".join(condition for condition, _ in given)
        values = [value for _, value in given]
        try:
            with self._reading() if dry_run else self._writing(durable=True) as connection:
                rows = connection.execute(
                    f"SELECT layer, scope, key, bytes FROM entries WHERE {where} ORDER BY id", values
                ).fetchall()
                if not dry_run:
                    self._note_uses(connection)
                    connection.execute(f"DELETE FROM entries WHERE {where}", values)
                    if next_epoch and tenant is not None:
                        epoch = self._epoch(connection, tenant) + 1
                    self._note_change(connection, tenant, epoch)
        except sqlite3.Error as error:
            raise self._error(error, "invalidate entries of") from error
        if not dry_run:
            self._counts.update((row[0], "deleted", "") for row in rows)
        entries = tuple((row[0], Scope.from_text(row[1]), row[2]) for row in rows)
        return Removal(entries, sum(row[3] for row in rows), dry_run)

    def epoch(self, tenant: str) -> int:
        """The tenant's current epoch; 0 before the first was advanced."""
        try:
            with self._reading() as connection:
                return self._epoch(connection, tenant)
        except sqlite3.Error as error:
            raise self._error(error, "read the epoch of a tenant of") from error

    def advance_epoch(self, tenant: str, *, dry_run: bool = True) -> Removal:
        """Start a new epoch for `tenant`: none of its entries so far is ever seen again."""
        return self._delete([("tenant = ?", _text(tenant))], tenant, 0, dry_run, next_epoch=True)

    def miss(self, layer: str, reason: Miss) -> None:
        """Count a look-up that its owner decided by itself, without `get`."""
        with self._lock:
            self._counts[layer, "miss", reason] += 1

    def follow(self, layer: str, after: int = 0) -> tuple[list[Entry], int]:
        """Whole entries of a layer stored since mark `after`, by any process, oldest first, and the mark to go on from.

        For an index over the entries: what it holds must still pass `get` before it is shown. An entry that was replaced
        comes again. Where the file cannot be read there is nothing new.
        """
        try:
            with self._reading() as connection:
                # The mark first: what another process stores between the two questions lies behind it, not before it.
                last = int(connection.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()[0])
                rows = connection.execute(
                    "SELECT scope, key, created, lifetime, facts, tags, cost, uses, digest, value FROM entries "
                    "WHERE id > ? AND id <= ? AND layer = ? ORDER BY id",
                    (after, last, layer),
                ).fetchall()
        except sqlite3.Error as error:
            self._trouble(error)
            return [], after
        found = [_entry(layer, Scope.from_text(scope), key, *rest) for scope, key, *rest in rows]
        return [entry for entry in found if entry is not None], max(after, last)

    def entries(self, *, layer: str, scope: Scope | None = None) -> Iterator[Entry]:
        """All whole entries of a layer, fresh or not, oldest first, to rebuild an index from. Show none without `get`."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT scope, key, created, lifetime, facts, tags, cost, uses, digest, value FROM entries "
                "WHERE layer = ? AND (? IS NULL OR scope = ?) ORDER BY id",
                (layer, *[None if scope is None else scope.to_text()] * 2),
            ).fetchall()
        for text, key, *rest in rows:
            entry = _entry(layer, Scope.from_text(text), key, *rest)
            if entry is not None:
                yield entry

    def layers(self) -> tuple[str, ...]:
        """The layers this `Store` object has accounts of, by name."""
        with self._lock:
            return tuple(sorted({layer for layer, _, _ in self._counts}))

    def stats(self, layer: str | None = None) -> Stats:
        """The accounts of `layer`, or of all together."""

        def by_detail(kind: str) -> dict[str, int]:
            found: Counter[str] = Counter()
            for (of, what, detail), number in counts.items():
                if what == kind and layer in (None, of):
                    found[detail] += number
            return dict(found)

        with self._lock:
            counts = dict(self._counts)
        total = {kind: sum(by_detail(kind).values()) for kind in _COUNTED}
        return Stats(misses=by_detail("miss"), refused=by_detail("refused"), **total)

    # -- look-up -------------------------------------------------------------------------------------------------------

    def _look(
        self,
        connection: sqlite3.Connection,
        scope: Scope,
        key: str,
        now: float,
        control: CacheControl,
        layer: str,
        use: bool,
    ) -> Lookup:
        text = scope.to_text()
        row = connection.execute(_SELECT, (layer, key, text, _text(scope.tenant))).fetchone()
        now, era = self._at(now, row[0], row[1])
        _, _, epoch, row_id, entry_epoch, entry_era, created, lifetime, *rest = row
        if row_id is None:
            elsewhere = connection.execute("SELECT 1 FROM entries WHERE layer = ? AND key = ?", (layer, key)).fetchone()
            return Lookup(None, "scope" if elsewhere else "absent")
        age = now - created
        if entry_era != era or age < 0:
            return Lookup(None, "clock")
        if entry_epoch != epoch:
            return Lookup(None, "epoch", age)
        if lifetime is not None and age >= lifetime:
            return Lookup(None, "expired", age)
        if control.max_age_s is not None and age >= control.max_age_s:
            return Lookup(None, "max-age", age)
        entry = _entry(layer, scope, key, created, lifetime, *rest)
        if entry is None:
            self._drop(row_id, layer)
            return Lookup(None, "corrupt", age)
        if not self._facts_hold(entry.facts):
            return Lookup(None, "facts", age)
        if use:
            self._uses[row_id] += 1
            if len(self._uses) >= _PENDING_USES:
                # Uses are noted in bulk: a write for every read would cost more than many an answer.
                with suppress(sqlite3.Error), self._writing() as writer:
                    self._note_uses(writer)
        return Lookup(entry, None, age)

    def _at(self, now: float, era: int, latest: float) -> tuple[float, int]:
        """The time that counts and the era it lies in, starting a new era where the clock has stepped back."""
        known = max(self._latest, latest)
        if now < known - self._slack:
            with self._writing(durable=True) as connection:
                connection.execute("UPDATE state SET era = era + 1, latest = ?", (now,))
                era = connection.execute("SELECT era FROM state").fetchone()[0]
            self._latest = now
            return now, era
        self._latest = max(known, now)
        if now > latest + max(1.0, self._slack):
            # Kept on the disk about once a second, for a clock that steps back while no process is looking.
            with suppress(sqlite3.Error), self._writing() as connection:
                connection.execute("UPDATE state SET latest = max(latest, ?) WHERE era = ?", (now, era))
        return self._latest, era

    def _facts_hold(self, facts: Mapping[str, str]) -> bool:
        if not facts:
            return True
        return self._versions is not None and all(self._versions(name) == version for name, version in facts.items())

    def _counted(self, found: Lookup, layer: str, count: bool) -> Lookup:
        if count:
            key = (layer, "hits", "") if found.reason is None else (layer, "miss", found.reason)
            with self._lock:
                self._counts[key] += 1
        return found

    def _drop(self, row_id: int, layer: str) -> None:
        with suppress(sqlite3.Error), self._writing() as connection:
            gone = connection.execute("DELETE FROM entries WHERE id = ?", (row_id,)).rowcount
            self._counts[layer, "dropped", ""] += gone

    # -- storing -------------------------------------------------------------------------------------------------------

    def _put(
        self, connection: sqlite3.Connection, entry: Entry, ticket: Ticket, now: float, size: int
    ) -> tuple[Refusal | None, Counter[tuple[str, str, str]]]:
        went: Counter[tuple[str, str, str]] = Counter()
        era, latest, inflation, epoch, changes, all_changes = connection.execute(
            "SELECT era, latest, inflation, coalesce(tenants.epoch, 0), coalesce(changes, 0), all_changes "
            "FROM state LEFT JOIN tenants ON tenant = ?",
            (_text(entry.scope.tenant),),
        ).fetchone()
        known = max(self._latest, latest)
        if now < known - self._slack or ticket.era != era:
            # The clock went back since this work began, or in this very moment: `created` says nothing about its age.
            if now < known - self._slack:
                connection.execute("UPDATE state SET era = era + 1, latest = ?", (now,))
                self._latest = now
            return "clock", went
        self._latest = now = max(known, now)
        if (ticket.epoch, ticket.changes, ticket.all_changes) != (epoch, changes, all_changes):
            return "invalidated", went
        self._note_uses(connection)
        scope = entry.scope.to_text()
        if connection.execute(
            "DELETE FROM entries WHERE layer = ? AND key = ? AND scope = ?", (entry.layer, entry.key, scope)
        ).rowcount:
            went[entry.layer, "replaced", ""] += 1
        facts, tags = _json(entry.facts), _json(sorted(entry.tags))
        expires = None if entry.lifetime is None else entry.created + entry.lifetime
        row_id = connection.execute(
            _INSERT,
            (
                entry.layer, scope, entry.key, _text(entry.scope.tenant), epoch, era, float(entry.created), entry.lifetime,
                expires, facts, tags, float(entry.cost), entry.uses, inflation + entry.uses * entry.cost / size, size,
                _seal(entry), entry.value,
            ),
        ).lastrowid  # fmt: skip
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [(_text(tag), row_id) for tag in entry.tags])
        went[entry.layer, "stores", ""] += 1
        connection.execute("UPDATE state SET latest = max(latest, ?)", (now,))
        self._make_room(connection, now, went)
        return None, went

    def _make_room(self, connection: sqlite3.Connection, now: float, went: Counter[tuple[str, str, str]]) -> None:
        def used() -> int:
            return int(connection.execute("SELECT bytes FROM state").fetchone()[0])

        if used() <= self.limit_bytes:
            return
        for (layer,) in connection.execute("DELETE FROM entries WHERE expires <= ? RETURNING layer", (now,)).fetchall():
            went[layer, "expired", ""] += 1
        while used() > self.limit_bytes:
            row_id, layer, priority = connection.execute(
                "SELECT id, layer, priority FROM entries ORDER BY priority, id LIMIT 1"
            ).fetchone()
            connection.execute("DELETE FROM entries WHERE id = ?", (row_id,))
            connection.execute("UPDATE state SET inflation = max(inflation, ?)", (priority,))
            went[layer, "evicted", ""] += 1

    def _note_uses(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "UPDATE entries SET uses = uses + ?1, priority = (SELECT inflation FROM state) + (uses + ?1) * cost / bytes "
            "WHERE id = ?2",
            [(number, row_id) for row_id, number in self._uses.items()],
        )
        self._uses.clear()

    def _note_change(self, connection: sqlite3.Connection, tenant: str | None, epoch: int) -> None:
        if tenant is None:
            connection.execute("UPDATE state SET all_changes = all_changes + 1")
            return
        connection.execute(
            "INSERT INTO tenants VALUES (?1, ?2, 1) ON CONFLICT (tenant) DO UPDATE SET changes = changes + 1, "
            "epoch = max(epoch, ?2)",
            (_text(tenant), epoch),
        )

    def _epoch(self, connection: sqlite3.Connection, tenant: str) -> int:
        row = connection.execute("SELECT epoch FROM tenants WHERE tenant = ?", (_text(tenant),)).fetchone()
        return int(row[0]) if row else 0

    # -- the file ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._follow_fork()
            if self._connection is None:
                raise CacheError(f"the cache {self.path} is closed; open it again with Store(path)")
            yield self._connection

    @contextmanager
    def _writing(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            nested: bool = connection.in_transaction
            if nested:
                raise CacheError("a cache was used from within its own transaction (its `versions` must not use the store)")
            if durable:
                connection.execute("PRAGMA synchronous=FULL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                if durable:
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA synchronous=NORMAL")

    def _open(self, set_aside: bool) -> sqlite3.Connection:
        if self.in_memory:
            return self._connect()
        if not Path(self.path).parent.is_dir():
            raise CacheError(f"cannot open the cache {self.path}: its folder does not exist; create it first")
        # One opener at a time: none may set aside what another has just started anew.
        with FileLock(f"{self.path}.lock"):
            try:
                return self._connect()
            except _Unusable as unusable:
                if not set_aside:
                    raise CacheError(
                        f"the cache {self.path} is unusable: {unusable}; delete it or set_aside=True"
                    ) from unusable
                aside = f"{self.path}.{unusable.kind}-{uuid.uuid4().hex[:8]}"
                for suffix in ("", "-wal", "-shm"):  # a log left beside a new file would be played into it
                    with suppress(FileNotFoundError):
                        Path(self.path + suffix).rename(aside + suffix)
                _log.warning(
                    "the cache %s is unusable (%s): set aside as %s, an empty one is started", self.path, unusable, aside
                )
                return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            self._prepare(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                if _code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise _Unusable("damaged", str(error)) from error
                raise self._error(error, "open") from error
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._check_kind(connection)
        until = time.monotonic() + self._busy_timeout
        while True:  # SQLite does not wait by itself for this switch while another process is at the file
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.005)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._check_kind(connection)
            else:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if kind != _APPLICATION_ID:
            raise CacheError(f"{self.path} is an SQLite file but not a cache; it is left as it is, choose another path")
        if version > SCHEMA_VERSION:
            raise CacheError(
                f"the cache {self.path} has schema version {version}, this labkit knows up to {SCHEMA_VERSION}; "
                "update labkit, or choose another path"
            )
        if version < SCHEMA_VERSION:
            raise _Unusable("old", f"schema version {version}, this labkit writes {SCHEMA_VERSION}")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Unusable("damaged", str(verdict))

    def _follow_fork(self) -> None:
        """After a fork, give this process a connection of its own: SQLite's cannot be shared with the parent."""
        if self._owner == os.getpid():
            return
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._uses.clear()
        if self._connection is not None:
            self._inherited.append(self._connection)  # not closed: closing it would drop the parent's file locks
            self._connection = None
            if self.in_memory:
                raise CacheError("a cache in memory belongs to the process that made it; use a file to share one")
            self._connection = self._open(set_aside=False)

    def _trouble(self, error: sqlite3.Error) -> None:
        """Say once that the cache does not work; every further time is in the counts."""
        if not self._warned:
            self._warned = True
            _log.warning("%s; answers are delivered without it", self._error(error, "use"))

    def _error(self, error: sqlite3.Error, action: str) -> CacheError:
        return CacheError(
            f"cannot {action} the cache {self.path}: {error} ({_FIXES.get(_code(error), 'see the cause above')})"
        )


class _Unusable(LabError):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_COUNTED = ("hits", "stores", "replaced", "evicted", "expired", "deleted", "dropped")
_FIXES: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk failed or is full: check it",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only: make it writable or choose another path",
    sqlite3.SQLITE_CANTOPEN: "the folder must exist and be writable: create it or choose another path",
    sqlite3.SQLITE_BUSY: "another process holds it: close that, or raise busy_timeout",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: close it; the next Store(path) sets it aside and starts an empty one",
    sqlite3.SQLITE_NOTADB: "the file is damaged: close it; the next Store(path) sets it aside and starts an empty one",
}


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _text(name: str) -> str:
    """A name as SQLite can keep it: in ASCII, for a lone surrogate (broken JSON from a client) has no UTF-8 form."""
    return json.dumps(name)


def _bytes(entry: Entry) -> int:
    texts = (entry.key, entry.scope.to_text(), _json(entry.facts), _json(sorted(entry.tags)))
    return len(entry.value) + sum(map(len, texts))


def _seal(entry: Entry) -> str:
    """What ties all that decides about an entry together, so that one damaged on the disk is not believed."""
    return digest(
        entry.layer, entry.scope.to_text(), entry.key, repr(entry.created), repr(entry.lifetime),
        _json(entry.facts), _json(sorted(entry.tags)), entry.value,
    )  # fmt: skip


def _entry(
    layer: str, scope: Scope, key: str, created: float, lifetime: float | None, facts: str, tags: str, cost: float,
    uses: int, seal: str, value: bytes,
) -> Entry | None:  # fmt: skip
    """The entry as it was stored, or None where it no longer is."""
    try:
        entry = Entry(
            scope, key, value, created, layer, lifetime, json.loads(facts), frozenset(json.loads(tags)), cost, uses
        )
        return entry if _seal(entry) == seal else None
    except (ValueError, TypeError, AttributeError):
        return None
