"""The one store under every cache of this room: an SQLite file of entries that knows scope, freshness and worth.

**Never a wrong answer.** An entry is handed out only to an equal scope, within its lifetime, with the facts it was made
from unchanged, in its tenant's current epoch, and whole (each carries a digest of its own content). Whatever cannot be
decided is a miss. Work that began before an invalidation cannot be stored after it: `put` wants the `Ticket` taken first.

**Clocks that step back.** An age cannot be told once a clock has gone back, so the store keeps the latest time it has
seen; a time more than `clock_slack_s` before it starts a new *era*, and entries of older eras miss for good. Times behind
by less (two tasks that read the clock in one order and arrive in the other) count as the latest time seen. A step back
that is over before the store is next used cannot be seen; entries then live longer by that step.

**Worth.** Over `limit_bytes`, what has expired goes first, then what is worth least (`labkit.caches.worth`).

**Durability.** Puts commit to a write-ahead log without waiting for the disk: they survive `kill -9`, and a power cut at
worst forgets some (a miss). Invalidations wait for the disk (`synchronous=FULL`), because forgetting one would be a wrong
answer. A full or failing disk never fails a request: `get` misses, `put` does not store, both are counted. An
*invalidation* that fails raises.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from labkit.caches.entry import (
    CacheError,
    Entry,
    Lookup,
    Miss,
    Refusal,
    Removal,
    Ticket,
    Versions,
    seal,
    size_of,
    to_json,
    to_text,
    whole_entry,
)
from labkit.caches.rules import CacheControl, Scope
from labkit.caches.schema import open_cache, trouble
from labkit.caches.stats import Counts, Event, Stats
from labkit.caches.worth import make_room, note_uses, worth
from labkit.request import InvalidRequest
from labkit.sqlite import NotOpen, SharedFile, transaction

_SQLITE_INTEGER = 2**63 - 1
_PENDING_USES = 256
_log = logging.getLogger(__name__)

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
        self._latest = -math.inf
        self._uses: Counter[int] = Counter()
        self._counts = Counts()
        self._warned = False
        self._file = SharedFile(
            lambda: open_cache(self.path, busy_timeout=busy_timeout, set_aside=set_aside),
            in_memory=self.in_memory,
            forked=self._uses.clear,  # the parent notes those
        )

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
        self._file.close(before=self._settle)

    def _settle(self) -> None:
        with suppress(sqlite3.Error, CacheError), self._writing() as connection:
            note_uses(connection, self._uses)
            connection.execute("UPDATE state SET latest = max(latest, ?)", (max(self._latest, -1e300),))

    def ticket(self, scope: Scope) -> Ticket:
        """Take this *before* computing what `put` will store, so that an invalidation meanwhile is not undone by it."""
        try:
            with self._reading() as connection:
                row = connection.execute(
                    "SELECT coalesce(tenants.epoch, 0), coalesce(changes, 0), all_changes, era "
                    "FROM state LEFT JOIN tenants ON tenant = ?",
                    (to_text(scope.tenant),),
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
        size = size_of(entry)
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
                self._counts.add(went)  # counted once the commit is through, or the accounts would not balance
            except sqlite3.Error as error:
                self._trouble(error)
                refusal = "unavailable"
        if refusal is not None:
            self._counts.one(entry.layer, "refused", refusal)
        return refusal

    def refuse(self, layer: str, reason: Refusal) -> None:
        """Count something that its owner did not even try to store ("no-store")."""
        self._counts.one(layer, "refused", reason)

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
            given.append(("id IN (SELECT entry FROM tags WHERE tag = ?)", to_text(tag)))
        if tenant is not None:
            given.append(("tenant = ?", to_text(tenant)))
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
                    note_uses(connection, self._uses)
                    connection.execute(f"DELETE FROM entries WHERE {where}", values)
                    if next_epoch and tenant is not None:
                        epoch = self._epoch(connection, tenant) + 1
                    self._note_change(connection, tenant, epoch)
        except sqlite3.Error as error:
            raise trouble(error, "invalidate entries of", self.path) from error
        if not dry_run:
            self._counts.add(Counter((row[0], "deleted", "") for row in rows))
        entries = tuple((row[0], Scope.from_text(row[1]), row[2]) for row in rows)
        return Removal(entries, sum(row[3] for row in rows), dry_run)

    def epoch(self, tenant: str) -> int:
        """The tenant's current epoch; 0 before the first was advanced."""
        try:
            with self._reading() as connection:
                return self._epoch(connection, tenant)
        except sqlite3.Error as error:
            raise trouble(error, "read the epoch of a tenant of", self.path) from error

    def advance_epoch(self, tenant: str, *, dry_run: bool = True) -> Removal:
        """Start a new epoch for `tenant`: none of its entries so far is ever seen again."""
        return self._delete([("tenant = ?", to_text(tenant))], tenant, 0, dry_run, next_epoch=True)

    def miss(self, layer: str, reason: Miss) -> None:
        """Count a look-up that its owner decided by itself, without `get`."""
        self._counts.one(layer, "miss", reason)

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
        found = [whole_entry(layer, Scope.from_text(scope), key, *rest) for scope, key, *rest in rows]
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
            entry = whole_entry(layer, Scope.from_text(text), key, *rest)
            if entry is not None:
                yield entry

    def layers(self) -> tuple[str, ...]:
        """The layers this `Store` object has accounts of, by name."""
        return self._counts.layers()

    def stats(self, layer: str | None = None) -> Stats:
        """The accounts of `layer`, or of all together."""
        return self._counts.stats(layer)

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
        row = connection.execute(_SELECT, (layer, key, text, to_text(scope.tenant))).fetchone()
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
        entry = whole_entry(layer, scope, key, created, lifetime, *rest)
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
                    note_uses(writer, self._uses)
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
            self._counts.one(layer, "miss" if found.reason else "hits", found.reason or "")
        return found

    def _drop(self, row_id: int, layer: str) -> None:
        with suppress(sqlite3.Error), self._writing() as connection:
            gone = connection.execute("DELETE FROM entries WHERE id = ?", (row_id,)).rowcount
            self._counts.add({(layer, "dropped", ""): gone})

    # -- storing -------------------------------------------------------------------------------------------------------

    def _put(
        self, connection: sqlite3.Connection, entry: Entry, ticket: Ticket, now: float, size: int
    ) -> tuple[Refusal | None, Counter[Event]]:
        went: Counter[Event] = Counter()
        era, latest, inflation, epoch, changes, all_changes = connection.execute(
            "SELECT era, latest, inflation, coalesce(tenants.epoch, 0), coalesce(changes, 0), all_changes "
            "FROM state LEFT JOIN tenants ON tenant = ?",
            (to_text(entry.scope.tenant),),
        ).fetchone()
        known = max(self._latest, latest)
        if now < known - self._slack:
            connection.execute("UPDATE state SET era = era + 1, latest = ?", (now,))
            self._latest = now
            return "clock", went
        self._latest = now = max(known, now)  # a time seen, whatever becomes of the entry
        if ticket.era != era:
            return "clock", went  # the clock went back since this work began: `created` says nothing about its age
        if (ticket.epoch, ticket.changes, ticket.all_changes) != (epoch, changes, all_changes):
            return "invalidated", went
        note_uses(connection, self._uses)
        scope = entry.scope.to_text()
        if connection.execute(
            "DELETE FROM entries WHERE layer = ? AND key = ? AND scope = ?", (entry.layer, entry.key, scope)
        ).rowcount:
            went[entry.layer, "replaced", ""] += 1
        facts, tags = to_json(entry.facts), to_json(sorted(entry.tags))
        expires = None if entry.lifetime is None else entry.created + entry.lifetime
        row_id = connection.execute(
            _INSERT,
            (
                entry.layer, scope, entry.key, to_text(entry.scope.tenant), epoch, era, float(entry.created), entry.lifetime,
                expires, facts, tags, float(entry.cost), entry.uses, worth(inflation, entry.uses, entry.cost, size), size,
                seal(entry), entry.value,
            ),
        ).lastrowid  # fmt: skip
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [(to_text(tag), row_id) for tag in entry.tags])
        went[entry.layer, "stores", ""] += 1
        connection.execute("UPDATE state SET latest = max(latest, ?)", (now,))
        went.update(make_room(connection, self.limit_bytes, now))
        return None, went

    def _note_change(self, connection: sqlite3.Connection, tenant: str | None, epoch: int) -> None:
        if tenant is None:
            connection.execute("UPDATE state SET all_changes = all_changes + 1")
            return
        connection.execute(
            "INSERT INTO tenants VALUES (?1, ?2, 1) ON CONFLICT (tenant) DO UPDATE SET changes = changes + 1, "
            "epoch = max(epoch, ?2)",
            (to_text(tenant), epoch),
        )

    def _epoch(self, connection: sqlite3.Connection, tenant: str) -> int:
        row = connection.execute("SELECT epoch FROM tenants WHERE tenant = ?", (to_text(tenant),)).fetchone()
        return int(row[0]) if row else 0

    # -- the file ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._file.use() as connection:
                yield connection
        except NotOpen as error:
            raise CacheError(f"the cache {self.path} {error}") from error

    @contextmanager
    def _writing(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            nested: bool = connection.in_transaction
            if nested:
                raise CacheError("a cache was used from within its own transaction (its `versions` must not use the store)")
            if durable:
                connection.execute("PRAGMA synchronous=FULL")
            try:
                with transaction(connection):
                    yield connection
            finally:
                if durable:
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA synchronous=NORMAL")

    def _trouble(self, error: sqlite3.Error) -> None:
        """Say once that the cache does not work; every further time is in the counts."""
        if not self._warned:
            self._warned = True
            _log.warning("%s; answers are delivered without it", trouble(error, "use", self.path))
