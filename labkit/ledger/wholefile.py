"""A file that appears whole or not at all.

If a process is killed while it writes such a file, the next process that writes into the folder deletes the remains.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_TEMPORARY = ".labkit-unfinished"


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to; if the block ends without an error, it is on the disk at `target`, in place of any file there.

    It is written beside `target` under a temporary name, and it is locked. A process that is killed meanwhile loses the
    lock, and the next process that writes into that folder deletes the file. Raises OSError.
    """
    _sweep(target.parent)
    handle, temporary = _begun(target)
    try:
        with os.fdopen(handle, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(handle)
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _begun(target: Path) -> tuple[int, Path]:
    """A new, empty file beside `target`, open and locked."""
    while True:
        temporary = target.parent / f".{target.name[:100]}.{uuid.uuid4().hex[:12]}{_TEMPORARY}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # another process deleted it before it was locked


def _sweep(folder: Path) -> None:
    """Delete unfinished files that no process is writing to."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
