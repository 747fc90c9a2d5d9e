"""The purses: what each limit has spent and set aside, in one SQLite file that threads and processes share.

**Never overspent.** Before a request is sent, the most that it can cost is *held* on every account that its limits name.
A hold is given only if, on each of them, settled + held + the new hold ≤ the limit. The check and the hold are one
transaction under SQLite's one write lock, so no interleaving of threads and processes comes between them. *Settling*
replaces the hold by the real cost, which is at most as much; *releasing* takes it away. A cost counts in the span in which
its hold was made: a request that begins on the 31st is the old month's, whenever it ends.

**Nothing leaks.** A hold belongs to a process (`labkit.budgets.holders`, and the empty file "…-holders" beside the purses).
When a request does not fit, the holds of processes that have ended are looked for first. What a killed process's request
cost is known to nobody here: it was perhaps billed, and at most at its hold. With `dead="charge"` such a hold counts as
spent (`Standing.lost`) until its span ends or somebody settles it, from the provider's bill say: the limit holds in real
dollars. With `dead="release"` it is forgotten, and the limit holds but for such requests. Give all processes that share a
file the same `dead`.

**Durability** as in the ledger: a write-ahead log with synchronous=FULL. A file in trouble refuses (fail closed). A
settlement that could not be written, or that an interrupt broke off, is remembered, and made with the next use that
succeeds; if the process ends before, its hold counts.

Money is `Decimal`, kept as decimal text. Times are in seconds since 1970, given by the caller, so that the virtual clock
works.
"""

from __future__ import annotations

import math
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Literal, Self

from labkit.budgets.errors import BudgetExhausted, PursesError
from labkit.budgets.holders import is_gone, this_process
from labkit.budgets.limits import EVERY, Spender, SpendingLimit, checked_usd, in_force, usd_text
from labkit.budgets.spans import Rolling, span_of
from labkit.request import InvalidValue
from labkit.sqlite import FileKind, FileTrouble, NotOpen, SharedFile, Unusable, explain, open_file, transaction

_ANYBODY = ""  # in the table of limits; a limit's own names are never empty
_EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
_SCHEMA = (
    "CREATE TABLE limits (tenant TEXT NOT NULL, user TEXT NOT NULL, feature TEXT NOT NULL, span TEXT NOT NULL, "
    "usd TEXT NOT NULL, PRIMARY KEY (tenant, user, feature, span)) STRICT, WITHOUT ROWID",
    "CREATE TABLE spent (account TEXT NOT NULL, span TEXT NOT NULL, bucket INTEGER NOT NULL, usd TEXT NOT NULL, "
    "PRIMARY KEY (account, span, bucket)) STRICT, WITHOUT ROWID",
    "CREATE TABLE holds (id TEXT NOT NULL PRIMARY KEY, usd TEXT NOT NULL, made REAL NOT NULL, holder TEXT NOT NULL, "
    "lost INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE parts (account TEXT NOT NULL, span TEXT NOT NULL, bucket INTEGER NOT NULL, hold TEXT NOT NULL, "
    "PRIMARY KEY (account, span, bucket, hold)) STRICT, WITHOUT ROWID",
    "CREATE INDEX parts_of_a_hold ON parts (hold)",
)
_PURSES = FileKind("file of purses", 0x1AB_9125E, version=1, schema=_SCHEMA, durable=True)


@dataclass(frozen=True, slots=True)
class Hold:
    """Money that is set aside for one attempt of `spender`: the most that it can cost. `made` is in seconds since 1970."""

    id: str
    usd: Decimal
    spender: Spender
    made: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands for one spender, in USD.

    `settled` is what was spent, `held` is set aside for requests under way, `lost` was set aside by processes that have
    ended. `ends` are (moment, USD) pairs: when how much of all three stops counting because its bucket ends.
    """

    limit: SpendingLimit
    settled: Decimal
    held: Decimal
    lost: Decimal
    ends: tuple[tuple[int, Decimal], ...] = ()

    @property
    def left(self) -> Decimal:
        """What may still be set aside; never below 0."""
        return max(Decimal(0), _EXACT.subtract(self.limit.usd, self._counted))

    @property
    def _counted(self) -> Decimal:
        return _EXACT.add(_EXACT.add(self.settled, self.held), self.lost)

    def fits_at(self, usd: Decimal) -> float | None:
        """The moment, in seconds since 1970, from which `usd` more fits at the latest; None if it exceeds the limit.

        It may fit earlier, where requests under way cost less than is held for them.
        """
        counted = _EXACT.add(self._counted, usd)
        for end, freed in sorted(self.ends):
            counted = _EXACT.subtract(counted, freed)
            if counted <= self.limit.usd:
                return float(end)
        return None


class Purses:
    """The purses in the file at `path`; ":memory:" keeps them in this process only.

    `dead` says what becomes of the holds of a process that has ended: "charge" counts them as spent, "release" forgets them.
    Use it as a context manager, or call `close()`. Threads may share one `Purses`, and processes of one machine one file.
    `busy_timeout`: seconds to wait for another process. All methods raise `PursesError` where the file fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        dead: Literal["charge", "release"] = "charge",
        busy_timeout: float = 10.0,
    ) -> None:
        if dead not in ("charge", "release"):
            raise InvalidValue(f'dead is {dead!r:.40}; use "charge" or "release"')
        self.in_memory = os.fspath(path) == ":memory:"
        self.path = ":memory:" if self.in_memory else str(Path(path).absolute())
        self.dead: Literal["charge", "release"] = dead
        self.busy_timeout = busy_timeout
        self._late: dict[str, Decimal] = {}
        self._file = SharedFile(self._open, in_memory=self.in_memory, forked=self._late.clear)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Purses({self.path!r})"

    def close(self) -> None:
        """Close the file. Holds that are open stay, until this process ends. Closing again does nothing."""
        self._file.close()

    # -- limits --------------------------------------------------------------------------------------------------------

    def allow(self, *limits: SpendingLimit) -> None:
        """Set `limits`; each takes the place of the one for the same names and span. What was spent stays spent."""
        for limit in limits:
            if not isinstance(limit, SpendingLimit):
                raise InvalidValue(f"a purse has a SpendingLimit, not {limit!r:.80}")
        with self._writing() as connection:
            for limit in limits:
                connection.execute(
                    "INSERT INTO limits VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET usd = excluded.usd",
                    (*_key(limit), str(limit.usd)),
                )

    def drop(self, limit: SpendingLimit) -> bool:
        """Remove the limit for the same names and span as `limit`; returns whether there was one."""
        with self._writing() as connection:
            where = "tenant = ? AND user = ? AND feature = ? AND span = ?"
            return connection.execute(f"DELETE FROM limits WHERE {where}", _key(limit)).rowcount > 0

    def limits(self) -> tuple[SpendingLimit, ...]:
        """All limits, in the order of their names."""
        with self._writing() as connection:
            return tuple(map(_limit, connection.execute("SELECT * FROM limits")))

    # -- spending ------------------------------------------------------------------------------------------------------

    def hold(self, spender: Spender, usd: Decimal, now: float) -> Hold:
        """Set `usd` aside at `now` on every account that covers `spender`, or on none.

        Raises `BudgetExhausted` where it does not fit, or where no limit covers the spender: whoever may spend without limit
        needs a limit that is large enough.
        """
        checked_usd("what is to be held", usd)
        if not math.isfinite(now):
            raise InvalidValue(f"the time is {now}; use seconds since 1970")
        made, begun = Hold(uuid.uuid4().hex, usd, spender, now), False
        try:
            with self._writing() as connection:
                limits = _covering(connection, spender)
                standings = [_standing(connection, limit, spender, now) for limit in limits]
                if any(each.left < usd for each in standings) and self._reclaim(connection):
                    standings = [_standing(connection, limit, spender, now) for limit in limits]
                short = [each for each in standings if each.left < usd]
                if limits and not short:
                    begun = True
                    _hold(connection, limits, made, "" if self.in_memory else this_process(self.path))
        except BaseException:
            if begun:  # it may be on the disk all the same, and nobody else knows of it
                self._late[made.id] = Decimal(0)
            raise
        if begun:
            return made
        raise _refusal(short, spender, usd, now)  # after the transaction, which keeps what was reclaimed

    def settle(self, hold: Hold, usd: Decimal) -> bool:
        """Replace `hold` by the real cost `usd`; returns False if it was settled or released before.

        The cost counts even where it is above the hold. Where the file fails, the settlement is remembered and made later.
        """
        checked_usd("what is to be settled", usd)
        try:
            with self._writing() as connection:
                return _settle(connection, hold.id, usd)
        except BaseException:
            self._late.setdefault(hold.id, usd)
            raise

    def release(self, hold: Hold) -> bool:
        """Take `hold` away: nothing was spent. Returns False if it was settled or released before."""
        return self.settle(hold, Decimal(0))

    def standings(self, spender: Spender, now: float) -> tuple[Standing, ...]:
        """How every limit stands that covers `spender`, at `now`."""
        with self._writing() as connection:
            return tuple(_standing(connection, limit, spender, now) for limit in _covering(connection, spender))

    def reclaim(self) -> int:
        """Look for holds of processes that have ended, as `hold` does before it refuses; returns how many there were."""
        with self._writing() as connection:
            return self._reclaim(connection)

    def open_holds(self) -> tuple[tuple[str, Decimal], ...]:
        """The id and the dollars of every hold of a process that, for all that is known, is alive."""
        with self._writing() as connection:
            rows = connection.execute("SELECT id, usd FROM holds WHERE NOT lost ORDER BY made, id")
            return tuple((id_, Decimal(usd)) for id_, usd in rows)

    def lost_holds(self) -> tuple[Hold, ...]:
        """The holds that processes left when they ended, to be settled when their cost is known; without their spenders."""
        with self._writing() as connection:
            rows = connection.execute("SELECT id, usd, made FROM holds WHERE lost ORDER BY made, id")
            return tuple(Hold(id_, Decimal(usd), Spender(), made) for id_, usd, made in rows)

    def _reclaim(self, connection: sqlite3.Connection) -> int:
        found = 0
        if self.in_memory:
            return found
        for (holder,) in connection.execute("SELECT DISTINCT holder FROM holds WHERE NOT lost").fetchall():
            if is_gone(self.path, holder):
                if self.dead == "release":
                    connection.execute(
                        "DELETE FROM parts WHERE hold IN (SELECT id FROM holds WHERE NOT lost AND holder = ?)", (holder,)
                    )
                    found += connection.execute("DELETE FROM holds WHERE NOT lost AND holder = ?", (holder,)).rowcount
                else:
                    found += connection.execute(
                        "UPDATE holds SET lost = 1 WHERE NOT lost AND holder = ?", (holder,)
                    ).rowcount
        return found

    # -- the file ------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if not self.in_memory and not Path(self.path).parent.is_dir():
            raise PursesError(f"cannot open the purses {self.path}: the folder does not exist; create it first")
        try:
            connection = open_file(self.path, _PURSES, busy_timeout=self.busy_timeout)
            try:
                if not self.in_memory:
                    this_process(self.path)
            except OSError:
                connection.close()
                raise
            return connection
        except Unusable as error:
            raise PursesError(f"{error}; what was spent is in the ledger, so new purses can be filled from it") from error
        except FileTrouble as error:
            raise self._error(error) from error
        except OSError as error:
            raise self._holders_error(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction, after the settlements that could not be made before."""
        try:
            with self._file.use() as connection:
                late = dict(self._late)
                with transaction(connection):
                    for id_, usd in late.items():
                        _settle(connection, id_, usd)
                    yield connection
                for id_ in late:
                    self._late.pop(id_, None)
        except NotOpen as error:
            raise PursesError(f"the file of purses {self.path} {error}") from error
        except FileTrouble as error:
            raise self._error(error) from error
        except OSError as error:
            raise self._holders_error(error) from error

    def _holders_error(self, error: OSError) -> PursesError:
        return PursesError(
            f"cannot lock a byte of {self.path}-holders, by which other processes know that this one lives: {error}; make "
            "it writable, or choose another path"
        )

    def _error(self, error: Exception) -> PursesError:
        return PursesError(f"cannot use the file of purses {self.path}: {explain(error, {})}")


def _key(limit: SpendingLimit) -> tuple[str, str, str, str]:
    return (limit.tenant or _ANYBODY, limit.user or _ANYBODY, limit.feature or _ANYBODY, limit.span.name)


def _limit(row: Sequence[str]) -> SpendingLimit:
    tenant, user, feature, span, usd = row
    return SpendingLimit(Decimal(usd), span_of(span), tenant or None, user or None, feature or None)


def _covering(connection: sqlite3.Connection, spender: Spender) -> list[SpendingLimit]:
    rows = connection.execute(
        "SELECT * FROM limits WHERE tenant IN (?1, ?2, ?3) AND user IN (?1, ?2, ?4) AND feature IN (?1, ?2, ?5)",
        (_ANYBODY, EVERY, spender.tenant, spender.user, spender.feature),
    )
    return in_force(map(_limit, rows.fetchall()))


def _total(amounts: list[tuple[int, Decimal]]) -> Decimal:
    total = Decimal(0)
    for _, usd in amounts:
        total = _EXACT.add(total, usd)
    return total


def _standing(connection: sqlite3.Connection, limit: SpendingLimit, spender: Spender, now: float) -> Standing:
    counted = (limit.account(spender), limit.span.name, limit.span.since(now))
    settled = [
        (limit.span.ends(bucket), Decimal(usd))
        for bucket, usd in connection.execute(
            "SELECT bucket, usd FROM spent WHERE account = ? AND span = ? AND bucket >= ?", counted
        )
    ]
    held: list[tuple[int, Decimal]] = []
    lost: list[tuple[int, Decimal]] = []
    for bucket, usd, is_lost in connection.execute(
        "SELECT bucket, usd, lost FROM parts JOIN holds ON id = hold WHERE account = ? AND span = ? AND bucket >= ?", counted
    ):
        (lost if is_lost else held).append((limit.span.ends(bucket), Decimal(usd)))
    return Standing(limit, _total(settled), _total(held), _total(lost), (*settled, *held, *lost))


def _hold(connection: sqlite3.Connection, limits: list[SpendingLimit], made: Hold, holder: str) -> None:
    now = made.made
    connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, 0)", (made.id, str(made.usd), now, holder))
    for limit in limits:
        account, span = limit.account(made.spender), limit.span
        connection.execute("INSERT INTO parts VALUES (?, ?, ?, ?)", (account, span.name, span.bucket(now), made.id))
        if isinstance(span, Rolling):  # of a calendar's buckets there are few; they stay
            connection.execute(
                "DELETE FROM spent WHERE account = ? AND span = ? AND bucket < ?",
                (account, span.name, span.since(now) - span.seconds),  # a clock may step back
            )


def _settle(connection: sqlite3.Connection, id_: str, usd: Decimal) -> bool:
    parts = connection.execute("DELETE FROM parts WHERE hold = ? RETURNING account, span, bucket", (id_,)).fetchall()
    if usd:
        for part in parts:
            before = connection.execute(
                "SELECT usd FROM spent WHERE account = ? AND span = ? AND bucket = ?", part
            ).fetchone()
            total = usd if before is None else _EXACT.add(Decimal(before[0]), usd)
            connection.execute(
                "INSERT INTO spent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET usd = excluded.usd", (*part, str(total))
            )
    return connection.execute("DELETE FROM holds WHERE id = ?", (id_,)).rowcount > 0


def _refusal(short: list[Standing], spender: Spender, usd: Decimal, now: float) -> BudgetExhausted:
    """The refusal by the limit that holds the request back for longest."""
    if not short:
        return BudgetExhausted(
            f"no limit covers {spender}, and without one nothing may be spent; set one, as in "
            "purses.allow(SpendingLimit(Decimal(50), Monthly(), tenant='*'))"
        )
    last = max(short, key=lambda each: each.fits_at(usd) or math.inf)
    fits = last.fits_at(usd)
    if not last.limit.usd:
        why = "the limit is 0, which lets nothing through that costs anything; raise it"
    elif usd > last.limit.usd:
        why = "that is more than the whole limit; lower max_tokens, shorten the prompt or raise the limit"
    else:
        aside = last.held + last.lost
        why = f"{usd_text(last.settled)} are spent and {usd_text(aside)} set aside"
        why += "" if fits is None else f"; it fits in {max(0.0, fits - now):.0f} s at the latest"
    return BudgetExhausted(
        f"the request may cost up to {usd_text(usd)} USD, and of {last.limit} {usd_text(last.left)} are left: {why}",
        left=last.left,
        needed=usd,
        retry_after_s=None if fits is None else max(0.0, fits - now),
    )
