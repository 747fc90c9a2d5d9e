"""A cache's file while it is in use.

If it turns out to be damaged, it is set aside and an empty one is started. If another process has replaced it, the new file
is opened.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from labkit.caches.entry import CacheError
from labkit.caches.schema import inode, open_cache, put_aside, trouble
from labkit.sqlite import FileTrouble, NotOpen, SharedFile, is_damage, transaction

T = TypeVar("T")
_log = logging.getLogger(__name__)


class CacheFile:
    """The file of a cache at `path`, or ":memory:"; see `open_cache` for `set_aside` and errors.

    `renewed` is called when the row ids known so far no longer count: in a forked process, and when another file takes the
    place of this one.
    """

    def __init__(self, path: str, busy_timeout: float, *, set_aside: bool, renewed: Callable[[], None]) -> None:
        self.path = path
        self.trouble: CacheError | None = None
        self._in_memory = path == ":memory:"
        self._busy_timeout = busy_timeout
        self._set_aside = set_aside
        self._renewed = renewed
        self._warned = False
        self._inode = 0
        self.shared = SharedFile(self._connect, in_memory=self._in_memory, forked=renewed)

    def run(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False, durable: bool = False) -> T:
        """Return what `work` returns; with `write`, run it in one transaction (`durable`: its commit waits for the disk).

        If the file is damaged, it is set aside and `work` runs on the new, empty one. Raises one of `FileTrouble`,
        `Unavailable` if no file can be opened, `CacheError` if the store is closed or is used from within its own
        transaction.
        """
        try:
            with self.shared.use() as connection:
                if connection.in_transaction:
                    raise CacheError("a cache was used from within its own transaction (its `versions` must not use it)")
                if self.moved():
                    self._renew(None)
                try:
                    return self._once(work, write, durable)
                except FileTrouble as error:
                    if self._in_memory or not self._set_aside or not is_damage(error):
                        raise
                    self._renew(error)
                    return self._once(work, write, durable)
        except NotOpen as error:
            raise CacheError(f"the cache {self.path} {error}") from error

    def told(self, action: str, work: Callable[[sqlite3.Connection], T], *, write: bool = False, durable: bool = False) -> T:
        """Like `run`, but raises `CacheError` for file trouble; its message says which `action` failed."""
        try:
            return self.run(work, write=write, durable=durable)
        except FileTrouble as error:
            raise trouble(error, action, self.path) from error

    def moved(self) -> bool:
        """Whether the file at `path` is no longer the one that is open here."""
        return not self._in_memory and inode(self.path) != self._inode

    def warn(self, error: Exception) -> CacheError:
        """Log once that the cache does not work, and return the error.

        Later errors are not logged again; they show in the store's counts and in `trouble`.
        """
        self.trouble = error if isinstance(error, CacheError) else trouble(error, "use", self.path)
        if not self._warned:
            self._warned = True
            _log.warning("%s; answers are delivered without it", self.trouble)
        return self.trouble

    def close(self, before: Callable[[], None]) -> None:
        """Close the file. If it is open in this process, call `before` first. Closing again does nothing."""
        self.shared.close(before)

    def _connect(self) -> sqlite3.Connection:
        connection, self._inode = open_cache(self.path, busy_timeout=self._busy_timeout, set_aside=self._set_aside)
        return connection

    def _renew(self, damage: Exception | None) -> None:
        number = self._inode
        self._renewed()
        self.shared.renew(lambda: put_aside(self.path, number, damage) if damage is not None else None)

    def _once(self, work: Callable[[sqlite3.Connection], T], write: bool, durable: bool) -> T:
        connection = self.shared.check()
        if not write:
            return work(connection)
        with transaction(connection, durable=durable):
            return work(connection)
