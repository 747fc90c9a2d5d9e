"""What time it is for a cache whose clock may step back.

An age cannot be told once a clock has gone back, so the latest time seen is kept, in this process and in the file; a time
more than `slack` seconds before it starts a new *era*, and entries of older eras miss for good. Times behind by less (two
tasks that read the clock in one order and arrive in the other) count as the latest time seen. A step back that is over
before the store is next used cannot be seen; entries then live longer by that step.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import suppress

from labkit.sqlite import transaction


class Eras:
    """The latest time that this process has seen. All times are in seconds since 1970."""

    def __init__(self, slack: float) -> None:
        self.slack = slack
        self.latest = -math.inf

    def at(self, connection: sqlite3.Connection, now: float, era: int, latest: float) -> tuple[float, int]:
        """The time that counts for a look, and its era, where the file has `era` and `latest`; writes down a step back."""
        known = max(self.latest, latest)
        if now < known - self.slack:
            with transaction(connection, durable=True):
                era = self._next(connection, now)
            return now, era
        self.latest = max(known, now)
        if now > latest + max(1.0, self.slack):
            # Kept on the disk about once a second, for a clock that steps back while no process is looking.
            with suppress(sqlite3.Error), transaction(connection):
                connection.execute("UPDATE state SET latest = max(latest, ?) WHERE era = ?", (now, era))
        return self.latest, era

    def while_storing(self, connection: sqlite3.Connection, now: float, latest: float) -> float | None:
        """The time that counts within a transaction that stores; None where the clock has stepped back."""
        known = max(self.latest, latest)
        if now < known - self.slack:
            self._next(connection, now)
            return None
        self.latest = max(known, now)
        return self.latest

    def _next(self, connection: sqlite3.Connection, now: float) -> int:
        self.latest = now
        return int(connection.execute("UPDATE state SET era = era + 1, latest = ? RETURNING era", (now,)).fetchone()[0])
