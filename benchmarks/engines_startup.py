"""How long until an engine answers: ours against plain `python -m vllm.entrypoints.openai.api_server`, run in turn.

    python benchmarks/engines_startup.py [--model FOLDER] [--rounds 1] [--baseline "--gpu-memory-utilization 0.3"]

Every start is measured until the first streamed token, because an engine that compiles on its first request is not up
before. Targets: a cold start <= 0.5 of the baseline, the next engine <= 0.3, attaching to a running engine < 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from labkit.engines import OpenAIEngine, connect, lab_model, running_engines
from labkit.request import EngineError, Request, complete

FIRST = Request("hello", max_tokens=1)


def proportional_memory(pid: int) -> float:
    """PSS of a process and all its descendants, in MiB: a shared page is split among the processes that share it."""
    root = psutil.Process(pid)
    return sum(process.memory_full_info().pss for process in (root, *root.children(recursive=True))) / 2**20


async def plain(model: str, flags: list[str]) -> tuple[float, float]:
    """Seconds to the first token of vLLM's own server, and its memory in MiB.

    Raises `SystemExit` with the end of its log when the server does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "m"]
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_CPU_KVCACHE_SPACE"}
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
            [*command, "--host", "127.0.0.1", "--port", str(port), *flags],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            engine = OpenAIEngine(f"http://127.0.0.1:{port}/v1", model="m")
            while True:
                try:
                    await complete(engine, FIRST)
                    break
                except EngineError:
                    if process.poll() is not None:
                        log.seek(0)
                        tail = log.read().decode(errors="replace")[-1500:]
                        raise SystemExit(f"the plain server did not start; see --baseline\n{tail}") from None
                    await asyncio.sleep(0.05)
            seconds = time.monotonic() - started
            memory = proportional_memory(process.pid)
            await engine.aclose()
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return seconds, memory


async def ours(model: str) -> tuple[float, float, float, float]:
    """Seconds to the first token of a cold start, of a next engine, and of a running one; MiB of memory with one engine."""

    async def first_token(**arguments: object) -> tuple[float, object]:
        started = time.monotonic()
        engine = await connect("vllm", model, progress=lambda _: None, linger_s=1, **arguments)
        await complete(engine, FIRST)
        return time.monotonic() - started, engine

    cold, one = await first_token()
    host = (await running_engines())[0].host_pid
    memory = proportional_memory(host)
    following, two = await first_token(block_size=64)
    # Attach as another process would: no connection of this one is reused.
    attach, again = await first_token()
    for engine in (one, two, again):
        await engine.aclose()
    while psutil.pid_exists(host):  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.1)
    return cold, following, attach, memory


async def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--baseline", default="", help="flags for the plain server, when its defaults do not start here")
    parser.add_argument("--second", default="--enforce-eager", help="a second baseline's flags, added to the first's")
    options = parser.parse_args()
    os.environ["LABKIT_RUNTIME_DIR"] = runtime = tempfile.mkdtemp(prefix="lkb-", dir="/tmp")
    model = lab_model(options.model)
    flags = shlex.split(options.baseline)
    default, eager, own = [], [], []
    try:
        for _ in range(options.rounds):
            default.append(await plain(model, flags))
            own.append(await ours(model))
            eager.append(await plain(model, [*flags, *shlex.split(options.second)]))
    finally:
        shutil.rmtree(runtime, ignore_errors=True)

    def middle(rows: list, column: int) -> float:
        return statistics.median(row[column] for row in rows)

    against, against_eager = middle(default, 0), middle(eager, 0)
    print(f"model {Path(model).name}, {options.rounds} round(s), medians; seconds to the first token; plain flags: {flags}")
    print(f"{'':34}{'seconds':>9}{'ratio to plain':>16}{'to plain ' + options.second:>26}")
    print(f"{'plain api_server':34}{against:9.2f}{1:16.2f}")
    print(f"{'plain api_server ' + options.second:34}{against_eager:9.2f}")
    for name, column in (("cold start", 0), ("next engine", 1), ("attach to a running one", 2)):
        seconds = middle(own, column)
        print(f"{'ours: ' + name:34}{seconds:9.2f}{seconds / against:16.3f}{seconds / against_eager:26.3f}")
    print(f"memory (PSS), MiB: plain {middle(default, 1):.0f}, plain {options.second} {middle(eager, 1):.0f}, "
          f"ours with one engine {middle(own, 3):.0f}")  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
