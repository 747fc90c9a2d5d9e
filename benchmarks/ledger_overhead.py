"""What a ledger costs, as ratios to a bare SQLite insert and commit that runs in the same minute.

    python -m benchmarks.ledger_overhead [--folder FOLDER] [--json FILE]

Three questions:

1. `append` against a bare `INSERT` + `COMMIT` of the same values into a table with as many columns, both with a
   write-ahead log and `synchronous=FULL`. For comparison: a bare commit that does not wait for the disk (NORMAL), `append`
   in memory, and a row of `extend` with 100 rows.
2. Inline or in a thread? How long 32 streams that end together wait for their rows either way, and how long the event loop
   stands still at most, as multiples of one bare commit.
3. `Booked` over 32 concurrent streams, a chunk every few milliseconds, against the same streams without it.

Variants take turns, and each figure is the median over the turns, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from labkit.cost import self_defined
from labkit.ledger import COLUMNS, Booked, Ledger, Row
from labkit.request import Chunk, Done, Event, Handler, Message, Request, Timing, Usage, clock, complete, stack

STREAMS, CHUNKS, GAP = 32, 64, 0.01
ROW = Row(
    provider="lab", request_model="large", response_model="large", finish_reasons=("stop",), input_tokens=900,
    output_tokens=80, cached_tokens=512, cache_write_tokens=0, reasoning_tokens=0, usage_source="reported",
    cost=Decimal("0.000123456"),
    tenant="team", user="user-17", feature="support", workflow="w-8812", idempotency_key="k-8812", route=("router", "large"),
    sent=1.0, first_token=1.2, last_token=2.0, done=2.0, started_unix=1.7e9,
)  # fmt: skip


def fresh_row() -> Row:
    """The sample row under an id of its own."""
    return replace(ROW, attempt_id=Row(provider="x").attempt_id)


def bare(path: Path, synchronous: str) -> sqlite3.Connection:
    """A plain table with as many columns as the ledger's, without constraints and index."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"CREATE TABLE t ({', '.join(f'c{i}' for i in range(len(COLUMNS)))})")
    return connection


def per_call(action: Callable[[], object], calls: int) -> float:
    """Mean seconds of one call of `action`, over `calls` calls."""
    started = time.perf_counter()
    for _ in range(calls):
        action()
    return (time.perf_counter() - started) / calls


def appends(folder: Path, turns: int) -> dict[str, float]:
    """Question 1: rows in a file, in memory and in bulk."""
    values = ROW.to_sql()
    insert = f"INSERT INTO t VALUES ({', '.join('?' * len(values))})"
    full, normal = bare(folder / "full.db", "FULL"), bare(folder / "normal.db", "NORMAL")

    def commit(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(insert, values)
        connection.execute("COMMIT")

    times: dict[str, list[float]] = {}
    with Ledger(folder / "ledger.db") as ledger, Ledger(":memory:") as memory:
        variants: dict[str, Callable[[], float]] = {
            "bare": lambda: per_call(lambda: commit(full), 100),
            "bare_normal": lambda: per_call(lambda: commit(normal), 100),
            "append": lambda: per_call(lambda: ledger.append(fresh_row()), 100),
            "append_memory": lambda: per_call(lambda: memory.append(fresh_row()), 100),
            "extend": lambda: per_call(lambda: ledger.extend([fresh_row() for _ in range(100)]), 3) / 100,
        }
        for _ in range(turns):
            for name, run in variants.items():
                times.setdefault(name, []).append(run())
    full.close()
    normal.close()
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "bare commits per second": 1 / median["bare"],
        "append / bare commit": median["append"] / median["bare"],
        "bare commit, not waiting for the disk / bare commit": median["bare_normal"] / median["bare"],
        "append in memory / bare commit": median["append_memory"] / median["bare"],
        "row of extend(100) / bare commit": median["extend"] / median["bare"],
    }


async def stillness(work: Callable[[], object], in_thread: bool) -> tuple[float, float]:
    """Seconds until `STREAMS` simultaneous calls of `work` are done, and the longest time the loop stood still meanwhile."""
    worst = 0.0

    async def heartbeat() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    async def one() -> None:
        if in_thread:
            await asyncio.to_thread(work)
        else:
            work()

    beat = asyncio.create_task(heartbeat())
    await asyncio.sleep(0)
    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(STREAMS)))
    elapsed = time.perf_counter() - started
    beat.cancel()
    with suppress(asyncio.CancelledError):
        await beat
    return elapsed, worst


def inline_or_thread(folder: Path, turns: int, commit_seconds: float) -> dict[str, float]:
    """Question 2: inline or in a thread. `commit_seconds` is the time of one bare commit."""
    times: dict[str, list[tuple[float, float]]] = {"inline": [], "thread": []}
    with Ledger(folder / "threads.db") as ledger:
        for _ in range(turns):
            for name, collected in times.items():
                collected.append(asyncio.run(stillness(lambda: ledger.append(fresh_row()), name == "thread")))
    out = {}
    for name, collected in times.items():
        label = "32 appends at once, " + ("inline" if name == "inline" else "a thread each")
        out[f"{label}: all kept / bare commit"] = statistics.median(done for done, _ in collected) / commit_seconds
        out[f"{label}: loop still / bare commit"] = statistics.median(still for _, still in collected) / commit_seconds
    return out


def engine(request: Request) -> AsyncGenerator[Event, None]:
    """A stream of `CHUNKS` chunks, one every `GAP` seconds."""

    async def events() -> AsyncGenerator[Event, None]:
        sent = clock.now()
        for i in range(CHUNKS):
            await asyncio.sleep(GAP)
            yield Chunk("token ", clock.now(), usage=Usage(900, i + 1))
        yield Done(Usage(900, CHUNKS), Timing(sent, sent + GAP, clock.now(), clock.now()), model=request.model)

    return events()


def streams(folder: Path, turns: int, commit_seconds: float) -> dict[str, float]:
    """Question 3: the wall time of all streams, and their processor time, which waiting for chunks cannot hide."""

    async def run(handler: Handler) -> None:
        await asyncio.gather(*(complete(handler, Request((Message("user", "hi"),), model="large")) for _ in range(STREAMS)))

    wall: dict[str, list[float]] = {"bare": [], "booked": []}
    busy: dict[str, list[float]] = {"bare": [], "booked": []}
    with Ledger(folder / "streams.db") as ledger:
        handlers = {"bare": engine, "booked": stack(Booked(ledger, {"*": self_defined("any", "1", "1")}), engine=engine)}
        for _ in range(turns):
            for name, handler in handlers.items():
                started, processor = time.perf_counter(), time.process_time()
                asyncio.run(run(handler))
                wall[name].append(time.perf_counter() - started)
                busy[name].append(time.process_time() - processor)
    paired = [kept / plain for kept, plain in zip(wall["booked"], wall["bare"], strict=True)]
    extra_busy = statistics.median(busy["booked"]) - statistics.median(busy["bare"])
    return {
        "32 booked streams / bare streams, wall time": statistics.median(paired),
        "processor time added per stream / bare commit": extra_busy / STREAMS / commit_seconds,
    }


def measure(folder: Path, turns: int = 7) -> dict[str, float]:
    """Every figure by its name; all but the first are ratios."""
    first = appends(folder, turns)
    commit_seconds = 1 / first["bare commits per second"]
    return first | inline_or_thread(folder, turns, commit_seconds) | streams(folder, turns, commit_seconds)


def main() -> None:
    """Print the figures, and write them as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="a folder on the disk to measure; the system's temporary folder by default"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.turns)
    for name, value in figures.items():
        print(f"{value:10.3f}  {name}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
