"""One connection to a file for all threads of a process, and another one for each forked process."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from labkit.request import LabError


class NotOpen(LabError):
    """The file was closed, or was in the memory of another process. The message is to be put after the file's name."""


class ProcessLock:
    """A reentrant lock for the threads of one process; a forked process gets a new lock, which nobody holds.

    At the moment of the fork, another thread may hold the parent's lock, and nobody in the new process would ever release
    it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = os.getpid()

    def mine(self) -> AbstractContextManager[bool]:
        """The lock of the present process."""
        if self._owner != os.getpid():
            self._lock, self._owner = threading.RLock(), os.getpid()
        return self._lock


class SharedFile:
    """A connection that all threads of a process share: opened with `connect` at once, and again in every forked process.

    SQLite's connections cannot be used across a fork. `forked` is called in the new process before it connects. A file in
    memory (`in_memory`) belongs to the process that made it.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], *, in_memory: bool, forked: Callable[[], None] = lambda: None
    ) -> None:
        self._connect = connect
        self._in_memory = in_memory
        self._forked = forked
        self._lock = ProcessLock()
        self._owner = os.getpid()
        self._inherited: list[sqlite3.Connection] = []
        self._lost = False
        self._connection: sqlite3.Connection | None = connect()

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; a thread may nest its uses.

        Raises `NotOpen`, and what `connect` raises.
        """
        with self._lock.mine():
            yield self.check()

    def check(self) -> sqlite3.Connection:
        """The connection of this process. Raises `NotOpen` if the file is not open here, and what `connect` raises."""
        self._follow_fork()
        if self._lost:
            self._connection = self._connect()
            self._lost = False
        if self._connection is None:
            raise NotOpen("is closed; open it again by its path")
        return self._connection

    def renew(self, between: Callable[[], None] = lambda: None) -> None:
        """Close the connection, call `between`, and open another connection. Raises what `connect` raises.

        If opening fails, the next use tries again.
        """
        with self._lock.mine():
            self.check()
            if self._connection is not None:
                with suppress(sqlite3.Error):  # closing a damaged file may fail too
                    self._connection.close()
            self._lost = True
            between()
            self._connection = self._connect()
            self._lost = False

    def close(self, before: Callable[[], None] = lambda: None) -> None:
        """Close the file. If it is open in this process, call `before` first. Closing again does nothing."""
        if self._owner != os.getpid():
            self._inherit()
        with self._lock.mine():
            if self._connection is not None:
                before()
                self._connection.close()
                self._connection = None

    def _follow_fork(self) -> None:
        if self._owner == os.getpid():
            return
        had = self._inherit()
        self._forked()
        if had:
            if self._in_memory:
                raise NotOpen("is in memory and belongs to the process that made it; use a file to share one")
            self._connection = self._connect()

    def _inherit(self) -> bool:
        """Put the parent's connection aside; returns whether there was one."""
        self._owner = os.getpid()
        if self._connection is None:
            return False
        self._inherited.append(self._connection)  # kept open: closing it here would drop the parent's file locks
        self._connection = None
        return True


@contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """Write under SQLite's one write lock: commit everything, or nothing if an exception leaves the block.

    `durable`: this commit waits for the disk (synchronous=FULL), whatever the connection's own setting.
    """
    usual = connection.execute("PRAGMA synchronous").fetchone()[0] if durable else None
    if durable:
        connection.execute("PRAGMA synchronous=FULL")
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    finally:
        # On a failing disk, the next statements may fail too; the error that is being raised is the one that matters.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if durable:
            with suppress(sqlite3.Error):
                connection.execute(f"PRAGMA synchronous={usual}")


FileTrouble = (sqlite3.Error, UnicodeDecodeError)
"""The errors that using a file may raise.

SQLite quotes a damaged schema in its errors, and Python's sqlite3 module then fails to decode it (UnicodeDecodeError).
"""


def is_damage(error: Exception) -> bool:
    """Whether `error` says that the file is damaged, not that it is busy, full or out of reach."""
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def explain(error: Exception, fixes: Mapping[int, str]) -> str:
    """The text of one of `FileTrouble`, and what to do about it.

    `fixes` (by primary code) come before the fixes for all files.
    """
    code = primary_code(error)
    return f"{error} ({fixes.get(code) or _FIXES.get(code, 'see the cause above')})"


def primary_code(error: Exception) -> int:
    """The primary result code of `error`: the low byte of SQLite's extended code.

    0 if Python's sqlite3 module raised the error itself. A text that the module cannot decode was damaged, so that counts as
    SQLITE_CORRUPT.
    """
    if isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8"):
        return sqlite3.SQLITE_CORRUPT
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


_FIXES: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk failed or is full: check it, then try again",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only: make it writable or choose another path",
    sqlite3.SQLITE_CANTOPEN: "the folder must exist and be writable: create it or choose another path",
    sqlite3.SQLITE_PERM: "the file is not yours: change its permissions or choose another path",
    sqlite3.SQLITE_BUSY: "another process keeps it locked: close that, or raise busy_timeout",
}
