"""Kill a writing process at a random moment, again and again, and look for acknowledged rows that are gone.

Each round forks a child from this warm process. The child appends rows to the one ledger and, after each `append` or
`extend` that returned, writes their numbers to a pipe; the parent sends SIGKILL at a random moment, mostly within the
first commits (sometimes before the child has opened the file). Then every number that came through the pipe must be in
the ledger, no row may be torn (each carries a checksum of its own content), at most the one transaction in flight may
be there unacknowledged, and SQLite's own integrity check must pass.

    python -m tests.ledger.crash --rounds 5000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from labkit.ledger import Ledger, Row

_BATCH = 3
_NUMBER = struct.Struct("<I")


@dataclass(frozen=True)
class Outcome:
    """What the rounds came to."""

    rounds: int
    acknowledged: int
    unacknowledged: int
    killed_mid_work: int


def checksum(number: int, round_id: int, padding: str) -> str:
    """What ties the fields of one row together: a torn row could not carry the right one."""
    return hashlib.sha256(f"{number}/{round_id}/{padding}".encode()).hexdigest()


def make_row(round_id: int, number: int, dice: random.Random) -> Row:
    padding = "x" * dice.choice([0, 10, 3000, 9000])  # some rows spill over several pages
    return Row(
        provider="crash",
        attempt=number + 1,
        feature=padding,
        tenant=str(round_id),
        workflow=checksum(number, round_id, padding),
    )


def _child(path: Path, round_id: int, seed: int, pipe: int) -> None:
    dice = random.Random(seed)
    ledger = Ledger(path)
    number = 0
    while True:
        count = dice.choice([1, 1, _BATCH])
        ledger.extend(make_row(round_id, number + i, dice) for i in range(count))
        number += count
        os.write(pipe, _NUMBER.pack(number))


def one_round(path: Path, round_id: int, seed: int) -> int:
    """Run one child and kill it; how many rows it had acknowledged."""
    dice = random.Random(seed)
    delay = dice.expovariate(1 / 0.004)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _child(path, round_id, seed, writer)
        finally:
            os._exit(1)  # never back into the parent's code (pytest, for one)
    os.close(writer)
    try:
        # Half the rounds aim at the appends themselves: start the clock at the first acknowledgement.
        heard = b""
        if dice.random() < 0.5:
            heard = os.read(reader, _NUMBER.size)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        while piece := os.read(reader, 65536):
            heard += piece
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        raise AssertionError(f"round {round_id}: the child failed by itself with status {status}")
    return max((number for (number,) in _NUMBER.iter_unpack(heard[: len(heard) // _NUMBER.size * _NUMBER.size])), default=0)


def check(path: Path, acknowledged: dict[int, int]) -> int:
    """Raise AssertionError unless the ledger holds all that was acknowledged, whole; how many rows it holds beyond that."""
    with Ledger(path) as ledger:
        verdict = ledger.frame("PRAGMA integrity_check").iloc[:, 0].tolist()
        if verdict != ["ok"]:
            raise AssertionError(f"integrity check: {verdict}")
        kept: dict[int, list[int]] = {}
        for row in ledger.rows():
            number, round_id = row.attempt - 1, int(row.tenant)
            if row.workflow != checksum(number, round_id, row.feature):
                raise AssertionError(f"round {round_id}: row {number} is torn")
            kept.setdefault(round_id, []).append(number)
    beyond = 0
    for round_id, count in acknowledged.items():
        numbers = kept.pop(round_id, [])
        if numbers != list(range(len(numbers))):
            raise AssertionError(f"round {round_id}: rows are missing in the middle or doubled: {numbers}")
        if len(numbers) < count:
            raise AssertionError(f"round {round_id}: {count} rows were acknowledged, {len(numbers)} are there")
        if len(numbers) > count + _BATCH:
            raise AssertionError(
                f"round {round_id}: {len(numbers)} rows for {count} acknowledged: one transaction was in flight"
            )
        beyond += len(numbers) - count
    if kept:
        raise AssertionError(f"rows of rounds that never ran: {sorted(kept)}")
    return beyond


def crash_rounds(rounds: int, seed: int, folder: Path, rounds_per_file: int = 25) -> Outcome:
    """Run `rounds`, a fresh ledger every `rounds_per_file` of them, checking each ledger after its last kill."""
    dice = random.Random(seed)
    total = beyond = mid_work = 0
    for start in range(0, rounds, rounds_per_file):
        path = folder / f"{start}.db"
        acknowledged = {}
        for round_id in range(start, min(start + rounds_per_file, rounds)):
            acknowledged[round_id] = one_round(path, round_id, dice.getrandbits(32))
        beyond += check(path, acknowledged)
        total += sum(acknowledged.values())
        mid_work += sum(count > 0 for count in acknowledged.values())
    return Outcome(rounds, total, beyond, mid_work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=None, help="a number to repeat a run's choices with; random by default")
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        print(crash_rounds(options.rounds, seed, Path(folder)))


if __name__ == "__main__":
    main()
