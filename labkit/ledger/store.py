"""The append-only store: one SQLite file to which many threads and processes append at the same time.

Durability. The journal is a write-ahead log with `synchronous=FULL`: a commit returns only after its log pages are on the
disk (fsync). So an acknowledged row survives `kill -9`, and also a power cut, if the disk really writes when it says so.
SQLite's usual choice with a write-ahead log, NORMAL, survives the kill too but may lose the last commits in a power cut.
FULL costs one fsync per commit; `extend` shares one among many rows. A write-ahead log needs all its processes on one
machine, so the file must not lie in a network folder.

Money is stored as decimal text, not as a whole number of small units. Provider prices (dollars per *million* tokens) and
shares of a GPU hour have no common smallest unit. Text keeps every digit of a computation and reads well in any SQL shell,
and `decimal_sum` adds it exactly. `sum` would use binary floats, so money is never summed with it here.
"""

from __future__ import annotations

import difflib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labkit.extras import MissingExtra
from labkit.ledger.errors import LedgerError
from labkit.ledger.row import COLUMNS, DERIVED, KINDS, Kind, Row
from labkit.ledger.tables import frame_of, write_parquet
from labkit.ledger.wholefile import whole_file
from labkit.request import LabError
from labkit.sqlite import FileKind, FileTrouble, NotOpen, SharedFile, Unusable, explain, open_file, primary_code, transaction

if TYPE_CHECKING:
    import pandas as pd

_SQL_TYPES: Mapping[Kind, str] = {
    "text": "TEXT", "integer": "INTEGER", "real": "REAL", "flag": "INTEGER", "list": "TEXT", "money": "TEXT",
}  # fmt: skip
_WIDE = Context(prec=100, rounding=ROUND_HALF_EVEN)  # wide enough to add all amounts that a ledger can hold without rounding


def _quoted(name: str) -> str:
    return f'"{name}"'


_STORED = ", ".join(_quoted(column.name) for column in COLUMNS)
_READABLE = ", ".join(map(_quoted, KINDS))
_INSERT = f"INSERT INTO attempts ({_STORED}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT DO NOTHING"
_SCHEMA = (
    "CREATE TABLE attempts ("
    + ", ".join(
        [f'"{c.name}" {_SQL_TYPES[c.kind]}{" NOT NULL" if c.required else ""}' for c in COLUMNS]
        + [f'"{name}" REAL AS ({formula}) VIRTUAL' for name, formula in DERIVED.items()]
    )
    + ', UNIQUE ("labkit.attempt_id")) STRICT',
    'CREATE INDEX attempts_of_a_request ON attempts ("labkit.tenant", "labkit.idempotency_key") '
    "WHERE \"labkit.idempotency_key\" <> ''",
    "CREATE TRIGGER attempts_are_not_changed BEFORE UPDATE ON attempts "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: book a correcting row instead of changing one'); END",
    "CREATE TRIGGER attempts_are_not_deleted BEFORE DELETE ON attempts "
    "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: start a new file instead of deleting rows'); END",
)
_OURS = r'"((?:labkit|gen_ai|error)\.[^"]*)"'  # an attribute's name in a query
_TPOT = "labkit.tpot"
_UPGRADES = {
    1: (
        f'ALTER TABLE attempts DROP COLUMN "{_TPOT}"',
        f'ALTER TABLE attempts ADD COLUMN "{_TPOT}" REAL AS ({DERIVED[_TPOT]}) VIRTUAL',
        'ALTER TABLE attempts ADD COLUMN "labkit.note" TEXT',
    ),
    2: ("ALTER TABLE attempts ADD COLUMN \"labkit.prompt_version\" TEXT NOT NULL DEFAULT ''",),
}
_LEDGER = FileKind("ledger", 0x1AB_1ED6E, version=3, schema=_SCHEMA, durable=True, upgrades=_UPGRADES)  # "lab ledge(r)"


class DecimalSum:
    """SQL's `decimal_sum(column)`: the exact sum of decimal texts, as decimal text; NULL if there is no value."""

    def __init__(self) -> None:
        self.total: Decimal | None = None

    def step(self, value: str | None) -> None:
        """Add one value; NULL adds nothing."""
        if value is not None:
            self.total = _WIDE.add(self.total or Decimal(0), Decimal(value))

    def finalize(self) -> str | None:
        """The sum as decimal text, or None."""
        return None if self.total is None else format(self.total, "f")


class Ledger:
    """An append-only ledger in the file at `path`; ":memory:" keeps one in this process only.

    Opening creates the file if it is missing, checks it and makes it ready to append. Use the ledger as a context manager,
    or call `close()`. Any number of threads may share one `Ledger`, and any number of processes of this machine one file. A
    `Ledger` carried across a fork opens a connection of its own. `busy_timeout` is how long, in seconds, to wait for another
    process's append.

    Every method raises `LedgerError` on failure; its message names the path and the fix.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 10.0) -> None:
        self.in_memory = os.fspath(path) == ":memory:"
        self.path = ":memory:" if self.in_memory else str(Path(path).absolute())
        self.busy_timeout = busy_timeout
        self._file = SharedFile(self._open, in_memory=self.in_memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({self.path!r})"

    def close(self) -> None:
        """Close the file. Appending or reading afterwards raises `LedgerError`; closing again does nothing."""
        self._file.close()

    def append(self, row: Row) -> None:
        """Keep `row` for good: when this returns, the row is on the disk.

        If it fails, the `LedgerError` carries the row in its `row`. Appending a row that is already kept does nothing.
        """
        self.extend((row,))

    def extend(self, rows: Iterable[Row]) -> None:
        """Keep all `rows`, or none of them, with one commit: when this returns, they are on the disk.

        Rows that are already kept are skipped. If it fails, the `LedgerError` carries the rows in its `rows`.
        """
        rows = tuple(rows)
        values = []
        for row in rows:
            if not isinstance(row, Row):
                raise LedgerError(f"a ledger keeps Row values, not {type(row).__name__}: {row!r:.80}", self.path, rows)
            values.append(row.to_sql())
        try:
            with self._file.use() as connection, transaction(connection):
                for row, value in zip(rows, values, strict=True):
                    if connection.execute(_INSERT, value).rowcount == 0:
                        self._check_same(connection, row, rows)
        except NotOpen as error:
            raise LedgerError(f"the ledger {self.path} {error}", self.path, rows) from error
        except FileTrouble as error:
            raise self._error(error, "append to", rows) from error
        except _DAMAGED as error:  # the kept row with this attempt_id cannot be read
            raise self._damaged(error, "append to", rows) from error

    def rows(self, *, after: int = 0, limit: int | None = None) -> list[Row]:
        """Every row in the order in which it was appended.

        Without the first `after` rows, which a reader already has, and no more than `limit` of the others.
        """
        with self._reading() as connection:
            # Fetch all rows at once: a ledger in memory has one connection, which takes no appends while it is read.
            # Rows are never deleted, so the rowids of n rows are 1 to n.
            query = f"SELECT {_STORED} FROM attempts WHERE rowid > ? ORDER BY rowid LIMIT ?"
            table = connection.execute(query, (after, -1 if limit is None else limit)).fetchall()
            return [Row.from_sql(values) for values in table]

    def walk(self) -> Iterator[Row]:
        """The same rows one by one, for a ledger that no memory holds."""
        if self.in_memory:
            yield from self.rows()
            return
        with self._reading() as connection:
            for values in connection.execute(f"SELECT {_STORED} FROM attempts ORDER BY rowid"):
                yield Row.from_sql(values)

    def __len__(self) -> int:
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM attempts").fetchone()[0])

    def frame(self, query: str | Mapping[str, object] | None = None, params: Sequence[object] = ()) -> pd.DataFrame:
        """The attempts as a dataframe: all of them, those that match a filter, or the result of an SQL query.

        A filter maps attribute names to a value or to a list of accepted values; None stands for "unknown":
        `frame({"labkit.feature": "search", "labkit.outcome": ["failed", "cancelled"]})`. Lists and money cannot be filtered
        on. A query is one SELECT over the table `attempts`; its `?` marks take `params`. Attribute names hold dots, so they
        need double quotes.

        Result columns with the name of an attribute have its type: Int64 and boolean (with missing values), float64, str,
        tuples of str for lists, and exact decimals (Arrow's decimal128(38, 18)) for `labkit.cost`. So `select
        decimal_sum("labkit.cost") as "labkit.cost" from attempts` gives an exact sum. For other columns, pandas guesses the
        type.
        """
        if isinstance(query, str):
            check_names(re.findall(_OURS, query), self.path)
            sql, values = query, list(params)
        else:
            condition, values = self._condition(query or {})
            sql = f"SELECT {_READABLE} FROM attempts{condition} ORDER BY rowid"
        with self._reading() as connection:
            cursor = connection.execute(sql, values)
            if cursor.description is None:
                raise LedgerError(f"frame reads with a SELECT; this gives no table: {sql!r:.200}", self.path)
            names = [description[0] for description in cursor.description]
            table = cursor.fetchall()
            return frame_of(names, table)

    def select(self, query: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The result of a SELECT over the table `attempts` as SQLite has it: lists are JSON, money is decimal text.

        For who reads much and needs no dataframe. Names, `?` marks and errors are those of `frame`.
        """
        check_names(re.findall(_OURS, query), self.path)
        with self._reading() as connection:
            return connection.execute(query, list(params)).fetchall()

    def export_parquet(self, path: str | os.PathLike[str]) -> int:
        """Write every attempt to the Parquet file `path`, and return their number.

        The file appears whole or not at all: it is written beside `path` under a temporary name and then renamed to `path`.
        If an export is killed, the next export into that folder deletes its temporary file. Cost is decimal128(38, 18),
        lists are lists, and latencies are included.
        """
        target = Path(path).absolute()
        try:
            with whole_file(target) as sink, self._reading() as connection:
                return write_parquet(connection.execute(f"SELECT {_READABLE} FROM attempts ORDER BY rowid"), sink)
        except OSError as error:
            raise LedgerError(
                f"cannot export to {target}: {error.strerror or error}; the ledger is untouched, choose a writable folder "
                "with room",
                str(target),
            ) from error

    def _open(self) -> sqlite3.Connection:
        if not self.in_memory and not Path(self.path).parent.is_dir():
            raise LedgerError(f"cannot open the ledger {self.path}: its folder does not exist; create it first", self.path)
        try:
            connection = open_file(self.path, _LEDGER, busy_timeout=self.busy_timeout)
        except Unusable as error:
            fix = f"; {_DAMAGE_FIX}" if error.why == "damaged" else ""
            raise LedgerError(f"{error}{fix}", self.path) from error
        except FileTrouble as error:
            raise self._error(error, "open", ()) from error
        connection.create_aggregate("decimal_sum", 1, DecimalSum)  # type: ignore[arg-type]
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write. For a file it is a new one, so that a long read never delays an append."""
        connection: sqlite3.Connection | None = None
        try:
            if self.in_memory:
                with self._file.use() as shared:
                    shared.execute("PRAGMA query_only=ON")
                    try:
                        yield shared
                    finally:
                        shared.execute("PRAGMA query_only=OFF")
            else:
                self._file.check()
                connection = sqlite3.connect(
                    f"{Path(self.path).as_uri()}?mode=ro", uri=True, timeout=self.busy_timeout, isolation_level=None
                )
                connection.create_aggregate("decimal_sum", 1, DecimalSum)  # type: ignore[arg-type]
                yield connection
        except NotOpen as error:
            raise LedgerError(f"the ledger {self.path} {error}", self.path) from error
        except FileTrouble as error:
            raise self._error(error, "read", ()) from error
        except (LedgerError, MissingExtra):
            raise
        except _DAMAGED as error:
            raise self._damaged(error, "read", ()) from error
        finally:
            if connection is not None:
                connection.close()

    def _condition(self, filters: Mapping[str, object]) -> tuple[str, list[object]]:
        check_names(filters, self.path)
        parts: list[str] = []
        values: list[object] = []
        for name, wanted in filters.items():
            options = list(wanted) if isinstance(wanted, list | set | frozenset) else [wanted]
            if KINDS[name] in ("list", "money"):
                raise LedgerError(f"{name} cannot be filtered on by value; select all and filter the dataframe", self.path)
            known = [option for option in options if option is not None]
            either = [f"{_quoted(name)} IN ({', '.join('?' * len(known))})"]
            if len(known) < len(options):
                either.append(f"{_quoted(name)} IS NULL")
            parts.append(f"({' OR '.join(either)})")
            values.extend(known)
        return (" WHERE " + " AND ".join(parts) if parts else ""), values

    def _check_same(self, connection: sqlite3.Connection, row: Row, rows: tuple[Row, ...]) -> None:
        kept = connection.execute(
            f'SELECT {_STORED} FROM attempts WHERE "labkit.attempt_id" = ?', (row.attempt_id,)
        ).fetchone()
        if Row.from_sql(kept) != row:
            raise LedgerError(
                f"the ledger {self.path} already keeps a different row with attempt_id {row.attempt_id!r}; "
                "rows are never changed, book the new one under an attempt_id of its own",
                self.path,
                rows,
            )

    def _damaged(self, error: Exception, action: str, rows: tuple[Row, ...]) -> LedgerError:
        return LedgerError(
            f"cannot {action} the ledger {self.path}: a row is damaged ({error}): {_DAMAGE_FIX}", self.path, rows
        )

    def _error(self, error: Exception, action: str, rows: tuple[Row, ...]) -> LedgerError:
        reading_wrong = action == "read" and primary_code(error) == sqlite3.SQLITE_ERROR
        cause = explain(error, {**_FIXES, sqlite3.SQLITE_ERROR: _QUERY_FIX} if reading_wrong else _FIXES)
        kept = f"; {len(rows)} unsaved row(s) are in this exception's rows" if rows else ""
        return LedgerError(f"cannot {action} the ledger {self.path}: {cause}{kept}", self.path, rows)


_QUERY_FIX = "check the query; attribute names need double quotes, values single ones"
_DAMAGE_FIX = "keep the file, save what is left (`sqlite3 FILE .recover`), start a new one"
_DAMAGED = (ValueError, TypeError, ArithmeticError, LabError)
"""The errors that a stored value causes if no `Row` wrote it."""
_FIXES: Mapping[int, str] = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file: it is left as it is, choose another path",
    sqlite3.SQLITE_CORRUPT: f"the file is damaged: {_DAMAGE_FIX}",
    sqlite3.SQLITE_AUTH: "this is not allowed on a ledger",
}


def check_names(names: Iterable[str], path: str) -> None:
    """Raise `LedgerError` for a name that is not an attribute of the ledger at `path`.

    SQLite reads an unknown name in double quotes as a text, so a misspelt name would match nothing without an error.
    """
    for name in names:
        if name not in KINDS:
            close = difflib.get_close_matches(name, KINDS, 3) or sorted(KINDS)
            raise LedgerError(f"the ledger has no attribute {name!r}; did you mean {', '.join(close)}?", path)
