"""How long the spending dashboard takes to draw, with a ledger of ATTEMPTS attempts that all lie in its two days.

    python -m benchmarks.spending_dashboard [--attempts 1000000] [--keep LEDGER]

Prints one JSON line: seconds to read the whole ledger into the mirror, milliseconds of a redraw's
queries, on the wall and of the CPU, for splits by organisation (of 80) and by user (of 5,000) and for one
organisation alone; the same sums asked of SQLite once; and a redraw right after 100 attempts were booked. The worst case is
meant: most ledgers of a million attempts are longer than two days, and what lies outside is hardly looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from labkit.ledger import Ledger, Row
from labkit.spending import DayView, Mirror, board

_END = 20_000 * 86_400.0 + 86_399
_AT_ONCE = 20_000


def attempt(dice: random.Random, number: int, attempts: int) -> Row:
    """One attempt: 80 organisations, 5,000 users, a twentieth repeated, one in fifty without a price."""
    read, out = dice.randrange(200, 4000), dice.randrange(10, 600)
    again = number > 0 and dice.random() < 0.05
    at = _END - 2 * 86_400 + number * 2 * 86_400 / attempts
    return Row(
        provider="lab", attempt_id=f"a{number}", request_model=dice.choice(("small", "medium", "large")),
        outcome=dice.choices(("completed", "failed", "cancelled"), (94, 4, 2))[0], finish_reasons=("stop",),
        input_tokens=read, output_tokens=out, cached_tokens=dice.choice((0, read // 2)), usage_source="reported",
        cost=None if dice.random() < 0.02 else Decimal(read + 8 * out) / 1_000_000,
        tenant=f"organisation {min(int(dice.expovariate(0.1)), 79)}", user=f"user {dice.randrange(5_000)}",
        feature=dice.choice(("desk", "search", "summary", "mail")), prompt_version=dice.choice(("v1", "v2")),
        idempotency_key=f"k{number - again}", attempt=1 + again, sent=at, first_token=at + 0.3, done=at + 2, started_unix=at,
    )  # fmt: skip


def timed(act: Callable[[], object], times: int = 7) -> dict[str, float]:
    """Milliseconds of `act`: the median on the wall, and the least of the CPU, which a busy machine moves less."""
    wall, cpu = [], []
    for _ in range(times):
        began, began_cpu = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return {"wall_ms": round(1e3 * statistics.median(wall), 1), "cpu_ms": round(1e3 * min(cpu), 1)}


def measure(ledger: Ledger) -> dict[str, object]:
    """All figures for a ledger whose attempts lie in the two days up to _END."""
    began, began_cpu = time.perf_counter(), time.process_time()
    mirror = Mirror(ledger)
    mirror.catch_up()
    found: dict[str, object] = {
        "attempts": mirror.attempts, "cpus": os.cpu_count(), "load": os.getloadavg()[0],
        "read_s": round(time.perf_counter() - began, 1), "read_cpu_s": round(time.process_time() - began_cpu, 1),
    }  # fmt: skip
    for name, view in {
        "by_organisation": DayView(_END, "organisation"),
        "by_user": DayView(_END, "user"),
        "one_organisation": DayView(_END, "feature", {"organisation": "organisation 3"}),
    }.items():
        found[name] = timed(lambda view=view: board(mirror, view))  # type: ignore[misc]
    dice = random.Random(1)
    ledger.extend(attempt(dice, mirror.attempts + 1_000 + number, 10**9) for number in range(100))
    found["after_100_more"] = timed(lambda: (mirror.catch_up(), board(mirror, DayView(_END, "organisation"))), 1)
    query = (
        'SELECT "labkit.tenant", count(*), sum("gen_ai.usage.input_tokens"), decimal_sum("labkit.cost") FROM attempts '
        'WHERE "labkit.started_unix" >= ? GROUP BY 1'
    )
    found["sqlite_one_split"] = timed(lambda: ledger.select(query, [_END - 86_400]), 1)
    return found


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="where the ledger is kept, and taken from another time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "books.db"
        with Ledger(path) as ledger:
            dice = random.Random(0)
            for first in range(len(ledger), given.attempts, _AT_ONCE):
                last = min(first + _AT_ONCE, given.attempts)
                ledger.extend(attempt(dice, number, given.attempts) for number in range(first, last))
            print(json.dumps(measure(ledger)))


if __name__ == "__main__":
    main()
