"""The file of a cache: its tables, and how it is opened."""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from labkit.caches.entry import CacheError, Unavailable
from labkit.sqlite import FileKind, FileTrouble, Unusable, explain, is_damage, open_file, primary_code

_log = logging.getLogger(__name__)
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
        inflation REAL NOT NULL, era INTEGER NOT NULL, latest REAL NOT NULL, all_changes INTEGER NOT NULL,
        birth INTEGER NOT NULL) STRICT""",
    "INSERT INTO state VALUES (1, 0, 0, 0.0, 0, -1e300, 0, random() >> 1 & 0x7FFFFFFFFFFFFFFF)",
    """CREATE TRIGGER counted_in AFTER INSERT ON entries BEGIN
        UPDATE state SET entries = entries + 1, bytes = bytes + NEW.bytes; END""",
    """CREATE TRIGGER counted_out AFTER DELETE ON entries BEGIN
        UPDATE state SET entries = entries - 1, bytes = bytes - OLD.bytes; DELETE FROM tags WHERE entry = OLD.id; END""",
)
CACHE = FileKind("cache", application_id=0x1AB_CAC4E, version=3, schema=_SCHEMA, durable=False)  # "lab cache"
_DAMAGED = "the file is damaged: close it; the next Store(path) sets it aside and starts an empty one"
_FIXES: Mapping[int, str] = {sqlite3.SQLITE_CORRUPT: _DAMAGED, sqlite3.SQLITE_NOTADB: _DAMAGED}
_SUFFIXES = ("", "-wal", "-shm")


def open_cache(path: str, *, busy_timeout: float, set_aside: bool) -> tuple[sqlite3.Connection, int]:
    """Open the cache at `path`; returns the connection and the file's inode (0 for ":memory:").

    A damaged file, or one with an older schema, is renamed so that its name says so, and an empty one is started. With
    `set_aside=False`, `CacheError` is raised instead. For a file with a newer schema, or one that is not a cache of ours,
    `CacheError` is raised in any case. `Unavailable` is raised if the folder does not exist or the file cannot be opened.
    `busy_timeout`: seconds to wait for another process.
    """
    if path == ":memory:":
        return open_file(path, CACHE, busy_timeout=busy_timeout), 0
    if not Path(path).parent.is_dir():
        raise Unavailable(f"cannot open the cache {path}: its folder does not exist; create it first")
    with _lock(path):
        try:
            return _whole(path, busy_timeout), inode(path)
        except _Broken as broken:
            if not set_aside:
                raise CacheError(f"the cache {path} is unusable: {broken}; delete it or set_aside=True") from broken
            _rename(path, broken.how, broken)
            return _whole(path, busy_timeout), inode(path)


def put_aside(path: str, number: int, error: Exception) -> None:
    """Rename the file at `path`, which `error` shows to be damaged; do nothing if its inode is no longer `number`."""
    with _lock(path):
        if inode(path) == number:
            _rename(path, "damaged", error)


def inode(path: str) -> int:
    """The inode number of the file at `path`, or -1 if there is no file."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


def trouble(error: Exception, action: str, path: str) -> Unavailable:
    """An `Unavailable` error for `error`, with the failed `action`, the path and the fix."""
    return Unavailable(f"cannot {action} the cache {path}: {explain(error, _FIXES)}")


class _Broken(Exception):
    """Raised for a cache file that may be set aside; `how` becomes part of its new name."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


def _lock(path: str) -> FileLock:
    """A lock for opening the file, so that no process sets aside a file that another one has just created."""
    return FileLock(f"{path}.lock")


def _rename(path: str, how: str, why: Exception) -> None:
    aside = f"{path}.{how}-{uuid.uuid4().hex[:8]}"
    for suffix in _SUFFIXES:  # SQLite would replay a log that was left behind into the new file
        with suppress(FileNotFoundError):
            Path(path + suffix).rename(aside + suffix)
    _log.warning("the cache %s is unusable (%s): set aside as %s, an empty one is started", path, why, aside)


def _whole(path: str, busy_timeout: float) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = open_file(path, CACHE, busy_timeout=busy_timeout)
        connection.text_factory = _text
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Broken(str(verdict), "damaged")
        if connection.execute("SELECT count(*) FROM state").fetchone()[0] != 1:
            raise _Broken("its state is missing", "damaged")
    except BaseException as error:
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
        if isinstance(error, Unusable):
            how = {"older": "old", "damaged": "damaged"}.get(error.why)
            raise (_Broken(str(error), how) if how else CacheError(str(error))) from error
        if isinstance(error, FileTrouble):
            code = primary_code(error)
            # Our own SQL fails only if the schema is damaged; a damaged header may mark a writable file as read-only.
            writable = os.access(path, os.W_OK) and os.access(Path(path).parent, os.W_OK)
            if is_damage(error) or code == sqlite3.SQLITE_ERROR or (code == sqlite3.SQLITE_READONLY and writable):
                raise _Broken(str(error), "damaged") from error
            raise trouble(error, "open", path) from error
        raise
    return connection


def _text(data: bytes) -> str:
    """Texts of a cache are ASCII; other bytes are damage, and are replaced so that the entry's digest no longer matches."""
    return data.decode("ascii", "replace")
