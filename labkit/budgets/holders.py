"""Which process holds money, and whether it still lives: each locks one byte of a file beside the purses.

The system takes the lock away when the process ends, in whatever way: it returns, is killed, or its machine stops. So a hold
of a living process never expires, however long its answer takes (a lease that ran out under a slow answer would let others
spend its money), and that of a dead one is known at once. Processes in different containers see each other's locks, though
not each other's ids; SQLite needs such locks from the file system as well.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass

_BYTES = 2**62  # a byte is chosen at random among so many: no two processes ever have the same; the file stays empty


@dataclass(frozen=True, slots=True)
class _Sign:
    """The locked `byte` of process `pid` in the file that is open as `handle`."""

    pid: int
    handle: int
    byte: int


_signs: dict[tuple[int, int, int], _Sign] = {}
"""The signs of this process (and, unused, of those it was forked from) by process, device and inode. The handles are never
closed: closing any handle of a file takes away all of the process's locks on it. A forked process does not inherit locks."""


def this_process(path: str) -> str:
    """This process, in a text that no other ever has, for `is_gone`. `path` is that of the purses. Raises OSError."""
    return str(_sign(path).byte)


def is_gone(path: str, holder: str) -> bool:
    """Whether the process that `this_process` named has ended. Raises OSError.

    Ask under the write lock of the purses: of two processes that ask at once about a third, each could keep the lock from
    the other for a moment.
    """
    handle, byte = _sign(path).handle, int(holder)
    if any(sign.pid == os.getpid() and sign.byte == byte for sign in list(_signs.values())):
        return False  # a process does not stand in the way of its own locks
    if not _locked(handle, byte):
        return False
    fcntl.lockf(handle, fcntl.LOCK_UN, 1, byte)
    return True


def _sign(path: str) -> _Sign:
    name, pid = f"{path}-holders", os.getpid()
    try:
        found = os.stat(name)
    except FileNotFoundError:
        pass
    else:
        known = _signs.get((pid, found.st_dev, found.st_ino))
        if known is not None:
            return known
    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    found, byte = os.fstat(handle), secrets.randbelow(_BYTES)
    if not _locked(handle, byte):
        raise OSError(f"byte {byte} of {name} is locked by another process")
    return _signs.setdefault((pid, found.st_dev, found.st_ino), _Sign(pid, handle, byte))  # if a thread was first, its


def _locked(handle: int, byte: int) -> bool:
    """Lock `byte`; returns whether no other process had it."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True
