"""Which entry is evicted first when a cache is full: GreedyDual-Size-Frequency.

The entry with the smallest

    H = L + F × C / S

is evicted. F is how often it was used (storing it counts as the first use), C what computing it cost, and S its bytes. L,
the age of the cache, is the H of the last evicted entry. L is added when an entry is stored or used, so unused entries fall
behind (L. Cherkasova, "Improving WWW proxies performance with GreedyDual-Size-Frequency caching policy", HPL-98-69R1, 1998).
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from labkit.caches.stats import Event


def worth(age: float, uses: int, cost: float, size: int) -> float:
    """H, the worth of an entry; `age` is L, and `size` is in bytes."""
    return age + uses * cost / size


def note_uses(connection: sqlite3.Connection, uses: Counter[int]) -> None:
    """Write the pending uses, by row id, to the file, and clear them."""
    if not uses:
        return
    connection.executemany(
        "UPDATE entries SET uses = uses + ?1, priority = (SELECT inflation FROM state) + (uses + ?1) * cost / bytes "
        "WHERE id = ?2",
        [(number, row_id) for row_id, number in uses.items()],
    )
    uses.clear()


def make_room(connection: sqlite3.Connection, limit_bytes: int, now: float) -> Counter[Event]:
    """If the entries exceed `limit_bytes`, delete those expired by `now`, then those worth least, until the rest fits.

    Returns the events to count. `now` (seconds since 1970) is recorded as a time seen in any case.
    """
    went: Counter[Event] = Counter()

    def used() -> int:
        return int(connection.execute("SELECT bytes FROM state").fetchone()[0])

    if connection.execute("UPDATE state SET latest = max(latest, ?) RETURNING bytes", (now,)).fetchone()[0] <= limit_bytes:
        return went
    for (layer,) in connection.execute("DELETE FROM entries WHERE expires <= ? RETURNING layer", (now,)).fetchall():
        went[layer, "expired", ""] += 1
    while used() > limit_bytes:
        row_id, layer, priority = connection.execute(
            "SELECT id, layer, priority FROM entries ORDER BY priority, id LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM entries WHERE id = ?", (row_id,))
        connection.execute("UPDATE state SET inflation = max(inflation, ?)", (priority,))
        went[layer, "evicted", ""] += 1
    return went
