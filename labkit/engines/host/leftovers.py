"""Removes what killed engines leave behind outside their own folders."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# Seconds that the kernel may take to end killed processes; a group that exists for longer holds zombies nobody collects.
_PATIENCE = 3.0


class Leftovers:
    """Pages of shared memory that Intel's OpenMP keeps for each process, named after its pid and user.

    OpenMP removes a page when its process ends normally; a killed process leaves its page behind.
    """

    def __init__(self) -> None:
        self._since = time.time()
        self._dying: dict[int, float] = {}

    @property
    def expected(self) -> bool:
        """Whether something killed may not be gone yet, so that `sweep` has to come again."""
        return bool(self._dying)

    def expect(self, group: int) -> None:
        """Note that the processes of `group` have been killed."""
        self._dying[group] = time.monotonic() + _PATIENCE

    def sweep(self) -> None:
        """Remove the pages of processes that are gone."""
        now = time.monotonic()
        # Groups are checked before pages, so that the page of the last process is removed as well.
        dying = {group: until for group, until in self._dying.items() if now < until and _runs(group)}
        for page in Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_*_{os.getuid()}"):
            pid = page.name.split("_")[-2]
            with contextlib.suppress(OSError):
                if page.stat().st_mtime >= self._since and not Path("/proc", pid).exists():
                    page.unlink()
        self._dying = dying


def _runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
