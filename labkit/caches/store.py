"""The store under every cache of this package: an SQLite file of entries, with rules for scope, freshness and worth.

**Never a wrong answer.** An entry is given only to an equal scope, within its lifetime, while the facts it was made from are
unchanged, in its tenant's current epoch, and undamaged (each entry carries a digest of its own content). Whatever cannot be
decided is a miss. Work that began before an invalidation cannot be stored after it: `put` requires the `Ticket` that was
taken first. `labkit.caches.eras` handles clocks that step back.

**Worth.** If the store holds more than `limit_bytes`, expired entries are removed first, then those that are worth least
(`labkit.caches.worth`).

**Durability.** Puts commit to a write-ahead log without waiting for the disk. They survive `kill -9`; a power cut may lose
some of them, which is a miss. Invalidations wait for the disk (`synchronous=FULL`), because a lost invalidation would be a
wrong answer. A full or failing disk never fails a request: `get` misses, `put` does not store, and both are counted. An
*invalidation* that fails raises.

**Damage.** A file that turns out to be damaged, when it is opened or while it is used, is set aside, and an empty one takes
its place. Every other process notices this by the file's inode.
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

    The bytes of values, keys, scopes, tags and facts count; the file is a little larger. `versions` gives the current
    version of a fact. An entry made from facts hits only while each fact still has the version it was made from, so without
    `versions` such entries never hit. A clock that steps back by up to `clock_slack_s` seconds does no harm; see
    `labkit.caches.eras`. `busy_timeout`: seconds to wait for another process. Use the store as a context manager, or call
    `close()`. Threads may share one `Store`, and processes of one machine one file.

    A damaged file, or one with an older schema, is set aside under a name that says so, and an empty one is started with a
    warning in the log: everything in a cache can be computed again. With `set_aside=False`, `CacheError` is raised instead.
    A file with a newer schema, or one that is not a cache of ours, is never touched; `CacheError` is raised. Raises
    `InvalidValue` for a limit below 1 or a slack that is not a finite number from 0.
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
        self.clock_slack_s = clock_slack_s
        self.busy_timeout = busy_timeout
        self.set_aside = set_aside
        self._versions = versions
        self._eras = Eras(clock_slack_s)
        self._uses: Counter[int] = Counter()
        self._counts = Counts()
        # In a new process or a new file, the row ids of pending uses no longer count.
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
        """The last error of the file; None if there was none."""
        return self._file.trouble

    @property
    def bytes(self) -> int:
        """Bytes of all entries, including expired ones that have not been removed yet."""
        return self._file.told("read", lambda connection: int(connection.execute("SELECT bytes FROM state").fetchone()[0]))

    def close(self) -> None:
        """Close the file. Closing again does nothing; using the store afterwards raises `CacheError`."""
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
        """The entry under `key` that `scope` may see at `now` (seconds since 1970), or the reason why there is none.

        If the entry is missing, the caller computes it and passes the `ticket` of this look-up to `put`. `count=False`
        leaves the look-up out of the counts and of the entry's uses; call `use` later to count it. Raises `InvalidValue` for
        a time that is not finite.
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
        """Take a ticket *before* computing what `put` will store.

        If an invalidation comes meanwhile, `put` refuses the value.
        """
        try:
            return self._file.run(lambda connection: table.state_of(connection, scope.tenant)[0].ticket())
        except (*FileTrouble, Unavailable) as error:
            self._file.warn(error)
            return NO_TICKET

    def use(self, found: Lookup, layer: str) -> None:
        """Count `found`, the result of an earlier look-up, as a hit of `layer` and as a use of its entry."""
        self._counts.one(layer, "hits")
        self._uses[found.row] += 1
        if len(self._uses) >= _PENDING_USES:
            # Uses are written in bulk: one write for every read would cost too much.
            with suppress(*FileTrouble, CacheError):
                self._file.run(lambda connection: note_uses(connection, self._uses), write=True)

    def miss(self, layer: str, reason: Miss) -> None:
        """Count a miss that the caller decided by itself, without `get`."""
        self._counts.one(layer, "miss", reason)

    def follow(self, layers: Sequence[str], after: Mark = (-1, 0)) -> tuple[list[Entry], Mark]:
        """Undamaged entries of `layers` that any process stored since mark `after`, oldest first, and the next mark.

        This is for an index over the entries: whatever the index finds must still pass `get` before it is shown. An entry
        that was replaced comes again. If the file cannot be read, there are no new entries.
        """
        try:
            return self._file.run(lambda connection: table.followed(connection, layers, after))
        except (*FileTrouble, Unavailable) as error:
            self._file.warn(error)
            return [], after

    def entries(self, *, layer: str, scope: Scope | None = None) -> Iterator[Entry]:
        """All undamaged entries of a layer, valid or not, oldest first. Show none of them to anybody without `get`."""
        yield from self._file.told("read", lambda connection: table.whole(connection, layer, scope))

    def epoch(self, tenant: str) -> int:
        """The tenant's current epoch; 0 if it was never advanced."""
        return self._file.told("read the epoch of a tenant of", lambda c: table.state_of(c, tenant)[0].epoch)

    def layers(self) -> tuple[str, ...]:
        """The layers in which this `Store` object has counted anything, by name."""
        return self._counts.layers()

    def stats(self, layer: str | None = None) -> Stats:
        """The counts of `layer`, or of all layers together."""
        return self._counts.stats(layer)

    # -- storing -------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, ticket: Ticket, *, now: float | None = None) -> Refusal | None:
        """Store `entry`; it replaces the entry that its scope has under its key. Returns None, or why it was not stored.

        `now` is the current time in seconds since 1970; by default it is `entry.created`, but an entry may be older than
        that. Raises `InvalidValue` for a time that is not finite.
        """
        return self.put_together((entry,), ticket, now=now)

    def put_together(self, entries: Sequence[Entry], ticket: Ticket, *, now: float | None = None) -> Refusal | None:
        """Store `entries` of one scope, all or none, in one commit. Returns None, or why they were not stored.

        `now` as in `put`. Raises `InvalidValue` for no entries, for entries of several scopes and for a time that is not
        finite.
        """
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
        """Count a value that its owner did not even try to store ("no-store")."""
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
        self._counts.add(went)  # counted after the commit, so that the counts match the file
        return no

    def _write(
        self, connection: sqlite3.Connection, entries: Sequence[Entry], ticket: Ticket, now: float
    ) -> tuple[Refusal | None, Counter[Event]]:
        went: Counter[Event] = Counter()
        state, inflation = table.state_of(connection, entries[0].scope.tenant)
        time = self._eras.while_storing(connection, now, state.latest)  # a time seen, even if the entries are refused
        if ticket.birth != state.birth:
            return "new-file", went
        if time is None or ticket.era != state.era:
            return "clock", went  # the clock stepped back since the work began, so `created` gives no age
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
        """Find the entries that match *all* given conditions; with `dry_run=False`, also remove them, durably.

        `before_epoch` (needs `tenant`) matches the entries of that tenant's earlier epochs, and becomes the tenant's current
        epoch if it is later. Work that is under way during an invalidation is not stored afterwards: for that tenant, or for
        all tenants if no `tenant` is given. Raises `CacheError` if the invalidation did not happen, `InvalidValue` if no
        condition is given.
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
        """Start a new epoch for `tenant`, so that none of its present entries is ever seen again.

        They are removed, unless `dry_run` is set. Raises `CacheError` if it did not happen.
        """
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
        while not dry_run and self._file.moved():  # another process replaced the file meanwhile: repeat it there
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
