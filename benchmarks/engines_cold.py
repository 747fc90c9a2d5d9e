"""What the first token of an engine waits for, with the files it needs in memory and with none of them there, in turns.

    python -m benchmarks.engines_cold [--rounds 3]

Linux only. "Cold" drops this environment's files and the model from the operating system's page cache first, which needs no
rights. What other running programs have mapped stays, so close them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from labkit.engines import connect, lab_model, running_host
from labkit.request import Request, complete


def drop_from_memory(tops: list[Path]) -> None:
    """Write back and forget the cached pages of every file below `tops`."""
    os.sync()
    for path in (path for top in tops for path in top.rglob("*") if path.is_file() and not path.is_symlink()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def one_start() -> dict[str, float]:
    """Seconds of each step of a start by a new host, until the first token."""
    began = time.monotonic()
    moments: dict[str, float] = {}
    engine = await connect("vllm", "small", progress=lambda step: moments.setdefault(step, time.monotonic()), linger_s=0)
    ready = time.monotonic()
    await complete(engine, Request("hello", max_tokens=1))
    first = time.monotonic()
    host = await running_host()
    await engine.aclose()
    while host and psutil.pid_exists(host):  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.1)
    forked = moments["starting the engine"]
    loads = moments.get("loading weights", forked)
    return {
        "importing vLLM": forked - began,
        "building the engine": loads - forked,
        "weights, cache, server": ready - loads,
        "first token": first - ready,
        "all": first - began,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["LABKIT_RUNTIME_DIR"] = runtime = tempfile.mkdtemp(prefix="lkb-", dir="/tmp")
    read = [Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib"), Path(lab_model("small"))]
    warm, cold = [], []
    try:
        asyncio.run(one_start())  # leaves the notes by which files are read ahead
        for _ in range(options.rounds):
            warm.append(asyncio.run(one_start()))
            drop_from_memory(read)
            cold.append(asyncio.run(one_start()))
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    print(f"{options.rounds} rounds, medians, seconds\n{'':26}{'warm':>8}{'cold':>8}")
    for step in warm[0]:
        middles = [statistics.median(row[step] for row in rows) for rows in (warm, cold)]
        print(f"{step:26}{middles[0]:8.2f}{middles[1]:8.2f}")


if __name__ == "__main__":
    main()
