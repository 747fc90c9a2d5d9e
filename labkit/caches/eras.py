"""What time it is for a cache whose clock may step back.

After a clock has stepped back, nobody can tell an age from it. So the latest time seen is kept, in this process and in the
file. A time that is more than `slack` seconds earlier starts a new *era*, and entries of older eras never hit again. A
smaller step back counts as the latest time seen: two tasks may read the clock in one order and arrive in the other. If the
clock steps back and catches up again before the store is next used, the step cannot be seen; entries then live longer by
that step.
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
        """The time that counts for a look-up, and its era.

        `era` and `latest` are those of the file. If the clock has stepped back, the new era is written to the file.
        """
        known = max(self.latest, latest)
        if now < known - self.slack:
            with transaction(connection, durable=True):
                era = self._next(connection, now)
            return now, era
        self.latest = max(known, now)
        if now > latest + max(1.0, self.slack):
            # Written to the disk about once a second, so that a step back is noticed even if no process was running then.
            with suppress(sqlite3.Error), transaction(connection):
                connection.execute("UPDATE state SET latest = max(latest, ?) WHERE era = ?", (now, era))
        return self.latest, era

    def while_storing(self, connection: sqlite3.Connection, now: float, latest: float) -> float | None:
        """The time that counts within a transaction that stores; None if the clock has stepped back."""
        known = max(self.latest, latest)
        if now < known - self.slack:
            self._next(connection, now)
            return None
        self.latest = max(known, now)
        return self.latest

    def _next(self, connection: sqlite3.Connection, now: float) -> int:
        self.latest = now
        return int(connection.execute("UPDATE state SET era = era + 1, latest = ? RETURNING era", (now,)).fetchone()[0])
