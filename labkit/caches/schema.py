"""The file of a cache: its tables, and how it is opened."""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from labkit.caches.entry import CacheError
from labkit.sqlite import FileKind, Unusable, explain, open_file, primary_code

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
        inflation REAL NOT NULL, era INTEGER NOT NULL, latest REAL NOT NULL, all_changes INTEGER NOT NULL) STRICT""",
    "INSERT INTO state VALUES (1, 0, 0, 0.0, 0, -1e300, 0)",
    """CREATE TRIGGER counted_in AFTER INSERT ON entries BEGIN
        UPDATE state SET entries = entries + 1, bytes = bytes + NEW.bytes; END""",
    """CREATE TRIGGER counted_out AFTER DELETE ON entries BEGIN
        UPDATE state SET entries = entries - 1, bytes = bytes - OLD.bytes; DELETE FROM tags WHERE entry = OLD.id; END""",
)
CACHE = FileKind("cache", application_id=0x1AB_CAC4E, version=2, schema=_SCHEMA, durable=False)  # "lab cache"
_DAMAGED = "the file is damaged: close it; the next Store(path) sets it aside and starts an empty one"
_FIXES: Mapping[int, str] = {sqlite3.SQLITE_CORRUPT: _DAMAGED, sqlite3.SQLITE_NOTADB: _DAMAGED}


def open_cache(path: str, *, busy_timeout: float, set_aside: bool) -> sqlite3.Connection:
    """A connection to the cache at `path`, or to one in memory.

    A damaged file, or one with an older schema, is renamed so that its name says so, and an empty one is started; with
    `set_aside=False`, and for a newer schema or a file that is no cache of ours, `CacheError` is raised.
    """
    if path == ":memory:":
        return open_file(path, CACHE, busy_timeout=busy_timeout)
    if not Path(path).parent.is_dir():
        raise CacheError(f"cannot open the cache {path}: its folder does not exist; create it first")
    # One opener at a time: none may set aside what another has just started anew.
    with FileLock(f"{path}.lock"):
        try:
            return _whole(path, busy_timeout)
        except _Broken as broken:
            if not set_aside:
                raise CacheError(f"the cache {path} is unusable: {broken}; delete it or set_aside=True") from broken
            aside = f"{path}.{broken.how}-{uuid.uuid4().hex[:8]}"
            for suffix in ("", "-wal", "-shm"):  # a log left beside a new file would be played into it
                with suppress(FileNotFoundError):
                    Path(path + suffix).rename(aside + suffix)
            _log.warning("the cache %s is unusable (%s): set aside as %s, an empty one is started", path, broken, aside)
            return _whole(path, busy_timeout)


def trouble(error: sqlite3.Error, action: str, path: str) -> CacheError:
    """SQLite's error, with the path and the fix."""
    return CacheError(f"cannot {action} the cache {path}: {explain(error, _FIXES)}")


class _Broken(Exception):
    """A cache that may be set aside; `how` goes into its new name."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


def _whole(path: str, busy_timeout: float) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = open_file(path, CACHE, busy_timeout=busy_timeout)
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Broken(str(verdict), "damaged")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, Unusable):
            raise (_Broken(str(error), "old") if error.why == "older" else CacheError(str(error))) from error
        if isinstance(error, sqlite3.Error):
            if primary_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise _Broken(str(error), "damaged") from error
            raise trouble(error, "open", path) from error
        raise
    return connection
