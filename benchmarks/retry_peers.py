"""Retries and a breaker beside stamina, tenacity, purgatory and pybreaker: the same failures, and the time of one call.

    python -m benchmarks.retry_peers --peer PYTHON [--requests 2000] [--rounds 7] [--share 0.3] [--seed 1]

PYTHON is the python of an environment of its own: `python -m venv FOLDER; FOLDER/bin/pip install stamina==26.1.0
tenacity==9.2.1 purgatory==3.0.1 pybreaker==1.4.1`. The schedule says for each request which of its attempts fail. All wait
0 s between attempts. For `Retry` and its peers the table has the attempts made and the requests answered, which must be
equal, and the microseconds of one request. For `Fallback` with a `Breaker` and its peers it has the calls that reached an
engine which is down, and the microseconds of a request that is refused. Ours carry a stream of events and a deadline, theirs
call a coroutine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from statistics import median
from typing import Any

from labkit.request import Done, EngineError, Event, Handler, Request, Timing, Usage, clock, complete, stack
from labkit.resilience import Backoff, Retry
from labkit.routing import Breaker, Fallback

ATTEMPTS = 3
FAILURES = 3
"""Failures in a row that open a breaker."""
ASKED = Request("Does it answer?")


def schedule(requests: int, share: float, seed: int) -> list[list[bool]]:
    """For each request, which of its attempts fail."""
    dice = random.Random(seed)
    return [[dice.random() < share for _ in range(ATTEMPTS)] for _ in range(requests)]


class Engine:
    """Fails as the schedule says, else answers at once with an empty answer."""

    def __init__(self, fails: list[list[bool]]) -> None:
        self.fails = fails
        self.calls = 0
        self.request = 0

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The answer, or the failure of this attempt."""
        self.calls += 1
        if self.fails[self.request][request.attempt - 1]:
            raise EngineError("down", 503)
        now = clock.now()
        yield Done(Usage(), Timing(now, done=now))


async def run(handler: Handler, engine: Engine) -> dict[str, float]:
    """What became of the requests of the schedule, one after another."""
    answered = 0
    began = time.perf_counter()
    for number in range(len(engine.fails)):
        engine.request = number
        try:
            await complete(handler, ASKED)
            answered += 1
        except EngineError:
            pass
    took = time.perf_counter() - began
    return {"calls": engine.calls, "answered": answered, "us": took / len(engine.fails) * 1e6}


def ours(job: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The bare engine, `Retry` over it, and a breaker over an engine that is down."""
    fails = job["fails"]
    bare, retried, down = Engine(fails), Engine(fails), Engine([[True] * ATTEMPTS for _ in fails])
    guarded = stack(Fallback(("engine",), Breaker(FAILURES, 3600.0)), engine={"engine": down})
    return {
        "bare engine": asyncio.run(run(bare, bare)),
        "Retry": asyncio.run(run(stack(Retry(ATTEMPTS, Backoff(0, 0, "none")), engine=retried), retried)),
        "Fallback with a Breaker": asyncio.run(run(guarded, down)),
    }


def theirs(python: str, job: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The results of the peers, from their own environment."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "job.json", Path(folder) / "results.json"
        given.write_text(json.dumps(job))
        subprocess.run([python, str(Path(__file__).with_name("retry_peers_theirs.py")), str(given), str(made)], check=True)
        found: dict[str, dict[str, float]] = json.loads(made.read_text())
        return found


def main() -> None:
    """Ours and theirs in turns, and the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    job = {"fails": schedule(args.requests, args.share, args.seed), "attempts": ATTEMPTS, "failures": FAILURES}
    rounds = [ours(job) | theirs(args.peer, job) for _ in range(args.rounds)]
    print(f"{'':26} {'calls':>8} {'answered':>9} {'us a request':>13}")
    for name, first in rounds[0].items():
        us = median(each[name]["us"] for each in rounds)
        print(f"{name:26} {first['calls']:8.0f} {first['answered']:9.0f} {us:13.1f}")
    retried = {(rounds[0][name]["calls"], rounds[0][name]["answered"]) for name in ("Retry", "stamina", "tenacity")}
    sys.exit(0 if len(retried) == 1 else "the retries did not make the same attempts")


if __name__ == "__main__":
    main()
