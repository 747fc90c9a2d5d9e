"""The peers' part of retry_peers.py, run by a Python that has stamina, tenacity, purgatory and pybreaker.

Reads the job from the file named first and writes the results to the one named second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pybreaker
import stamina
import tenacity
from purgatory import AsyncCircuitBreakerFactory


class Down(Exception):
    """The engine failed."""


class Engine:
    """Fails as the schedule says, else answers at once."""

    def __init__(self, fails: list[list[bool]]) -> None:
        self.fails = fails
        self.calls = 0
        self.request = 0
        self.attempt = 0

    async def __call__(self) -> None:
        """The answer, or the failure of this attempt."""
        self.calls += 1
        self.attempt += 1
        if self.fails[self.request][self.attempt - 1]:
            raise Down


async def run(call: Callable[[Engine], Awaitable[None]], fails: list[list[bool]]) -> dict[str, float]:
    """What became of the requests of the schedule, one after another."""
    engine, answered = Engine(fails), 0
    began = time.perf_counter()
    for number in range(len(fails)):
        engine.request, engine.attempt = number, 0
        try:
            await call(engine)
            answered += 1
        except Exception:  # noqa: BLE001 - the engine's failure, or the breaker's refusal
            pass
    took = time.perf_counter() - began
    return {"calls": engine.calls, "answered": answered, "us": took / len(fails) * 1e6}


def main() -> None:
    """All peers on one schedule."""
    stamina.instrumentation.set_on_retry_hooks([])  # it logs each retry, and writing the log would take most of the time
    job = json.loads(Path(sys.argv[1]).read_text())
    fails, attempts = job["fails"], job["attempts"]

    async def by_stamina(engine: Engine) -> None:
        waits = {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
        async for attempt in stamina.retry_context(on=Down, attempts=attempts, timeout=None, **waits):
            with attempt:
                await engine()

    async def by_tenacity(engine: Engine) -> None:
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type(Down),
            reraise=True,
        )
        await retrying(engine)

    breakers = AsyncCircuitBreakerFactory(default_threshold=job["failures"], default_ttl=3600)

    async def by_purgatory(engine: Engine) -> None:
        async with await breakers.get_breaker("engine"):
            await engine()

    breaker = pybreaker.CircuitBreaker(fail_max=job["failures"], reset_timeout=3600)

    async def by_pybreaker(engine: Engine) -> None:
        with breaker.calling():
            await engine()

    down = [[True] * attempts for _ in fails]
    results = {
        "stamina": asyncio.run(run(by_stamina, fails)),
        "tenacity": asyncio.run(run(by_tenacity, fails)),
        "purgatory": asyncio.run(run(by_purgatory, down)),
        "pybreaker": asyncio.run(run(by_pybreaker, down)),
    }
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
