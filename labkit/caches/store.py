"""The one store under every cache of this room: an SQLite file of entries that knows scope, freshness and worth.

**Never a wrong answer.** An entry is handed out only to an equal scope, within its lifetime, with the facts it was made
from unchanged, in its tenant's current epoch, and whole (each carries a digest of its own content). Whatever cannot be
decided is a miss. Work that began before an invalidation cannot be stored after it: `put` wants the `Ticket` taken first.
Clocks that step back are in `labkit.caches.eras`.

**Worth.** Over `limit_bytes`, what has expired goes first, then what is worth least (`labkit.caches.worth`).

**Durability.** Puts commit to a write-ahead log without waiting for the disk: they survive `kill -9`, and a power cut at
worst forgets some (a miss). Invalidations wait for the disk (`synchronous=FULL`), because forgetting one would be a wrong
answer. A full or failing disk never fails a request: `get` misses, `put` does not store, both are counted. An
*invalidation* that fails raises.

**Damage.** A file that turns out to be damaged, when it is opened or while it is used, is set aside and an empty one takes
its place. Every process notices by the file's inode when another has done so.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from labkit.caches import table
from labkit.caches.entry import (
    NO_TICKET,
    CacheError,
    Entry,
    Lookup,
    Miss,
    Refusal,
    Removal,
    Ticket,
    Unavailable,
    Versions,
    size_of,
    to_text,
)
from labkit.caches.eras import Eras
from labkit.caches.file import CacheFile
from labkit.caches.rules import CacheControl, Scope
from labkit.caches.stats import Counts, Event, Stats
from labkit.caches.table import Mark
from labkit.caches.verdict import refusal
from labkit.caches.worth import make_room, note_uses
from labkit.request import InvalidValue, LabError
from labkit.sqlite import FileTrouble, transaction

_SQLITE_INTEGER = 2**63 - 1
_PENDING_USES = 256


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
            raise InvalidValue(f"limit_bytes is {limit_bytes}; give the cache some room")
        if not (math.isfinite(clock_slack_s) and clock_slack_s >= 0):
            raise InvalidValue(f"clock_slack_s is {clock_slack_s}; use seconds from 0")
        self.in_memory = os.fspath(path) == ":memory:"
        self.path = ":memory:" if self.in_memory else str(Path(path).absolute())
        self.limit_bytes = limit_bytes
        self._versions = versions
        self._eras = Eras(clock_slack_s)
        self._uses: Counter[int] = Counter()
        self._counts = Counts()
        # In a new process or a new file, uses by row id are somebody else's.
        self._file = CacheFile(self.path, busy_timeout, set_aside=set_aside, renewed=self._uses.clear)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __len__(self) -> int:
        return self._file.told("read", lambda connection: int(connection.execute("SELECT entries FROM state").fetchone()[0]))

    @property
    def trouble(self) -> CacheError | None:
        """What went wrong with the file last, None if nothing did."""
        return self._file.trouble

    @property
    def bytes(self) -> int:
        """Bytes of all entries, those that have expired but not yet made room included."""
        return self._file.told("read", lambda connection: int(connection.execute("SELECT bytes FROM state").fetchone()[0]))

    def close(self) -> None:
        """Close the file; closing again does nothing, using it afterwards raises `CacheError`."""
        self._file.close(before=self._settle)

    def _settle(self) -> None:
        def work(connection: sqlite3.Connection) -> None:
            note_uses(connection, self._uses)
            connection.execute("UPDATE state SET latest = max(latest, ?)", (max(self._eras.latest, -1e300),))

        with suppress(*FileTrouble, LabError):
            self._file.run(work, write=True)

    # -- looking -------------------------------------------------------------------------------------------------------

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

        The `ticket` in it is what `put` wants of whoever computes what is missing. `count=False` leaves the look out of the
        accounts and of the entry's uses; `use` makes up for it.
        """
        if not math.isfinite(now):
            raise InvalidValue(f"the time is {now}; use seconds since 1970")
        control = control or CacheControl()
        try:
            found = self._file.run(lambda connection: self._look(connection, scope, key, now, control, layer))
        except (*FileTrouble, Unavailable) as error:
            found = Lookup(None, "no-cache" if control.no_cache else "unavailable", trouble=self._file.warn(error))
        if found.entry is not None and count:
            self.use(found, layer)
        elif count:
            self._counts.one(layer, "miss", found.reason or "")
        return found

    def ticket(self, scope: Scope) -> Ticket:
        """Take this *before* computing what `put` will store, so that an invalidation meanwhile is not undone by it."""
        try:
            return self._file.run(lambda connection: table.state_of(connection, scope.tenant)[0].ticket())
        except (*FileTrouble, Unavailable) as error:
            self._file.warn(error)
            return NO_TICKET

    def use(self, found: Lookup, layer: str) -> None:
        """Count `found`, an entry that was looked at before, as a hit of `layer` and a use of the entry."""
        self._counts.one(layer, "hits")
        self._uses[found.row] += 1
        if len(self._uses) >= _PENDING_USES:
            # Uses are noted in bulk: a write for every read would cost more than many an answer.
            with suppress(*FileTrouble, CacheError):
                self._file.run(lambda connection: note_uses(connection, self._uses), write=True)

    def miss(self, layer: str, reason: Miss) -> None:
        """Count a look-up that its owner decided by itself, without `get`."""
        self._counts.one(layer, "miss", reason)

    def follow(self, layers: Sequence[str], after: Mark = (-1, 0)) -> tuple[list[Entry], Mark]:
        """Whole entries of `layers` stored since mark `after`, by any process, oldest first, and the mark to go on from.

        For an index over the entries: what it holds must still pass `get` before it is shown. An entry that was replaced
        comes again. Where the file cannot be read there is nothing new.
        """
        try:
            return self._file.run(lambda connection: table.followed(connection, layers, after))
        except (*FileTrouble, Unavailable) as error:
            self._file.warn(error)
            return [], after

    def entries(self, *, layer: str, scope: Scope | None = None) -> Iterator[Entry]:
        """All whole entries of a layer, fresh or not, oldest first. Show none without `get`."""
        yield from self._file.told("read", lambda connection: table.whole(connection, layer, scope))

    def epoch(self, tenant: str) -> int:
        """The tenant's current epoch; 0 before the first was advanced."""
        return self._file.told("read the epoch of a tenant of", lambda c: table.state_of(c, tenant)[0].epoch)

    def layers(self) -> tuple[str, ...]:
        """The layers this `Store` object has accounts of, by name."""
        return self._counts.layers()

    def stats(self, layer: str | None = None) -> Stats:
        """The accounts of `layer`, or of all together."""
        return self._counts.stats(layer)

    # -- storing -------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, ticket: Ticket, *, now: float | None = None) -> Refusal | None:
        """Store `entry`, replacing the one its scope has under its key; None, or why it was not stored.

        `now` is the current time in seconds since 1970, `entry.created` unless given (an entry may be older than that).
        """
        return self.put_together((entry,), ticket, now=now)

    def put_together(self, entries: Sequence[Entry], ticket: Ticket, *, now: float | None = None) -> Refusal | None:
        """Store `entries` of one scope, all of them or none, with one commit; None, or why they were not stored."""
        if not entries or any(entry.scope != entries[0].scope for entry in entries):
            raise InvalidValue(f"{len(entries)} entries are stored together, of one scope; at least one is needed")
        now = entries[0].created if now is None else now
        if not math.isfinite(now):
            raise InvalidValue(f"the time is {now}; use seconds since 1970")
        no = self._put(entries, ticket, now)
        if no is not None:
            for entry in entries:
                self._counts.one(entry.layer, "refused", no)
        return no

    def refuse(self, layer: str, reason: Refusal) -> None:
        """Count something that its owner did not even try to store ("no-store")."""
        self._counts.one(layer, "refused", reason)

    def _put(self, entries: Sequence[Entry], ticket: Ticket, now: float) -> Refusal | None:
        if not ticket.valid:
            return "unavailable"
        if sum(map(size_of, entries)) > self.limit_bytes:
            return "too-large"
        if not all(self._facts_hold(entry.facts) for entry in entries):
            return "facts"
        try:
            no, went = self._file.run(lambda connection: self._write(connection, entries, ticket, now), write=True)
        except (*FileTrouble, Unavailable) as error:
            self._file.warn(error)
            return "unavailable"
        self._counts.add(went)  # counted once the commit is through, or the accounts would not balance
        return no

    def _write(
        self, connection: sqlite3.Connection, entries: Sequence[Entry], ticket: Ticket, now: float
    ) -> tuple[Refusal | None, Counter[Event]]:
        went: Counter[Event] = Counter()
        state, inflation = table.state_of(connection, entries[0].scope.tenant)
        time = self._eras.while_storing(connection, now, state.latest)  # a time seen, whatever becomes of the entries
        if time is None or ticket.era != state.era or ticket.birth != state.birth:
            return "clock", went  # it went back since this work began: `created` says nothing about an age
        if ticket != state.ticket():
            return "invalidated", went
        note_uses(connection, self._uses)
        for entry in entries:
            went.update(table.insert(connection, entry, state, inflation))
        went.update(make_room(connection, self.limit_bytes, time))
        return None, went

    # -- invalidating --------------------------------------------------------------------------------------------------

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
        `tenant` is given, for any. Raises `CacheError` when it did not happen, `InvalidValue` when nothing is given.
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
                raise InvalidValue(f"before_epoch={before_epoch} needs a tenant and a whole number from 0")
            given.append(("epoch < ?", before_epoch))
        if not given:
            raise InvalidValue("say what to delete: key, tag, tenant, layer or before_epoch; nothing was given")
        return self._delete(given, tenant, before_epoch or 0, dry_run)

    def advance_epoch(self, tenant: str, *, dry_run: bool = True) -> Removal:
        """Start a new epoch for `tenant`: none of its entries so far is ever seen again."""
        return self._delete([("tenant = ?", to_text(tenant))], tenant, 0, dry_run, next_epoch=True)

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

        def work(connection: sqlite3.Connection) -> list[tuple[str, str, str, int]]:
            rows = table.matching(connection, where, values)
            if not dry_run:
                note_uses(connection, self._uses)
                table.remove(connection, where, values)
                now = table.state_of(connection, tenant)[0].epoch + 1 if next_epoch and tenant is not None else epoch
                table.note_change(connection, tenant, now)
            return rows

        rows = self._file.told("invalidate entries of", work, write=not dry_run, durable=not dry_run)
        while not dry_run and self._file.moved():  # meanwhile another process set the file aside: once more, in the new one
            self._file.told("invalidate entries of", work, write=True, durable=True)
        if not dry_run:
            self._counts.add(Counter((row[0], "deleted", "") for row in rows))
        entries = tuple((row[0], Scope.from_text(row[1]), row[2]) for row in rows)
        return Removal(entries, sum(row[3] for row in rows), dry_run)

    # -- look-up -------------------------------------------------------------------------------------------------------

    def _look(
        self, connection: sqlite3.Connection, scope: Scope, key: str, now: float, control: CacheControl, layer: str
    ) -> Lookup:
        if control.no_cache:
            return Lookup(None, "no-cache", ticket=table.state_of(connection, scope.tenant)[0].ticket())
        state, found, elsewhere = table.find(connection, layer, key, scope)
        now, era = self._eras.at(connection, now, state.era, state.latest)
        ticket = state.ticket(era)
        if found is None:
            return Lookup(None, "scope" if elsewhere else "absent", None, ticket)
        age = now - found.created
        reason = refusal(found, state.epoch, era, now, control)
        entry = None
        if reason is None:
            entry = found.entry(connection, layer, scope, key)
            if entry is None:
                reason = "corrupt"
                self._drop(connection, found.row, layer)
            elif not self._facts_hold(entry.facts):
                entry, reason = None, "facts"
        return Lookup(entry, reason, None if reason == "clock" else age, ticket, None, found.row)

    def _drop(self, connection: sqlite3.Connection, row: int, layer: str) -> None:
        with suppress(sqlite3.Error), transaction(connection):
            gone = table.remove(connection, "id = ?", (row,))
            self._counts.add({(layer, "dropped", ""): gone})

    def _facts_hold(self, facts: Mapping[str, str]) -> bool:
        if not facts:
            return True
        return self._versions is not None and all(self._versions(name) == version for name, version in facts.items())
