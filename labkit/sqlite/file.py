"""Opening SQLite files of our own kinds, and telling them from all other files."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from labkit.request import LabError
from labkit.sqlite.shared import primary_code, transaction

_NO_VERSION = 1000  # versions count up from 1, so no version that labkit wrote reaches this


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of SQLite file: how it is recognised and how it is created.

    `noun`: the name of the kind in error messages. `application_id`: the number in the file's header that tells it from any
    other SQLite file. `schema`: the statements that create a file of this `version`. `upgrades`: for an older version, the
    statements that turn it into the next one; a file of an older version without upgrades is "older".

    `durable`: a commit returns only after its pages are on the disk (synchronous=FULL). Otherwise a commit survives the end
    of the process, but not always a power cut (NORMAL).
    """

    noun: str
    application_id: int
    version: int
    schema: tuple[str, ...]
    durable: bool
    upgrades: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


class Unusable(LabError):
    """A file that cannot be used as it is, and that has not been changed.

    `why` is "foreign" (an SQLite file of another kind), "newer" or "older" (of another version), or "damaged" (its schema or
    header is not the one that labkit wrote).
    """

    def __init__(self, message: str, why: Literal["foreign", "newer", "older", "damaged"]) -> None:
        super().__init__(message)
        self.why = why


def open_file(path: str, kind: FileKind, *, busy_timeout: float) -> sqlite3.Connection:
    """Open the file of `kind` at `path` (or ":memory:"); create it if it is missing.

    The connection is in autocommit mode, and the journal is a write-ahead log. `busy_timeout`: seconds to wait for another
    process. Raises `Unusable` and SQLite's own errors.
    """
    connection = sqlite3.connect(
        path, timeout=busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        _check(connection, path, kind)  # before changing anything
        _use_write_ahead_log(connection, busy_timeout)
        connection.execute(f"PRAGMA synchronous={'FULL' if kind.durable else 'NORMAL'}")
        # If several open a new file at once, the write lock decides who creates the schema; it also shows that we may write.
        with transaction(connection):
            if _check(connection, path, kind):
                for older in range(_version(connection), kind.version):
                    for statement in kind.upgrades[older]:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version={kind.version}")
                if not _is_ours(connection, kind):
                    raise Unusable(
                        f"the {kind.noun} {path} is damaged: its schema is not the one it was made with", "damaged"
                    )
            else:
                for statement in kind.schema:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={kind.application_id}")
                connection.execute(f"PRAGMA user_version={kind.version}")
    except UnicodeDecodeError as error:  # SQLite quotes the schema in its errors, and it is no longer text
        connection.close()
        raise Unusable(f"the {kind.noun} {path} is damaged: its schema is unreadable", "damaged") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check(connection: sqlite3.Connection, path: str, kind: FileKind) -> bool:
    """Whether the file has a schema of `kind`; False if it has no tables yet. Raises `Unusable` for any other file."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    if not _tables(connection):
        if found == kind.application_id:  # the id and the tables are written together
            raise Unusable(f"the {kind.noun} {path} is damaged: its tables are gone", "damaged")
        return False
    version = _version(connection)
    if found != kind.application_id:
        if _one_byte_apart(found, kind.application_id) and _is_ours(connection, kind):
            raise Unusable(f"the {kind.noun} {path} is damaged: its header is not the one it was made with", "damaged")
        raise Unusable(
            f"{path} is an SQLite file but not a {kind.noun}; it is left as it is, choose another path", "foreign"
        )
    if not 0 < version < _NO_VERSION:
        raise Unusable(f"the {kind.noun} {path} is damaged: its schema version is {version}", "damaged")
    if version > kind.version:
        raise Unusable(
            f"the {kind.noun} {path} has schema version {version}, this labkit knows up to {kind.version}; update labkit, "
            "or choose another path",
            "newer",
        )
    if any(older not in kind.upgrades for older in range(version, kind.version)):
        raise Unusable(f"schema version {version}, this labkit writes {kind.version}", "older")
    return True


def _one_byte_apart(number: int, other: int) -> bool:
    pairs = zip(number.to_bytes(4, "big", signed=True), other.to_bytes(4, "big", signed=True), strict=True)
    return sum(a != b for a, b in pairs) == 1


def _is_ours(connection: sqlite3.Connection, kind: FileKind) -> bool:
    """Whether the schema is that of `kind`.

    A damaged byte in the schema may leave valid SQL, but for tables or columns of other names; using these would fail later.
    """
    blank = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in kind.schema:
            blank.execute(statement)
        return _shape(connection, kind) == _shape(blank, kind)
    finally:
        blank.close()


def _shape(connection: sqlite3.Connection, kind: FileKind) -> dict[tuple[str, str], object]:
    """The parts of the schema, to compare two schemas.

    If upgrades may have altered the tables, their columns count and not their SQL text.
    """
    found: dict[tuple[str, str], object] = {}
    for type_, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall():
        if type_ == "table" and kind.upgrades:
            columns = connection.execute("SELECT name, type, hidden FROM pragma_table_xinfo(?)", (name,))
            found[type_, name] = frozenset(columns.fetchall())
        elif not name.startswith("sqlite_stat"):
            found[type_, name] = sql
    return found


def _use_write_ahead_log(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Switch the file's journal to a write-ahead log.

    SQLite does not wait here while another process uses the file, so this tries again for `busy_timeout` seconds.
    """
    until = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)
