"""How well a latency model, fitted for half a minute, forecasts loads it has not seen, on the engine of this machine.

    python -m benchmarks.latency_model [--model small] [--rounds 1]

Probes the live engine, fits the model, then runs held-out loads: other prompt and answer lengths, other concurrencies, other
arrival patterns. Each load runs twice, with other words of the same lengths. The distance between its two runs is what no
forecast of medians can beat on this machine at this moment. Prints for each load what was measured, the forecast, its error
and that distance; then the errors and the distances per metric over all loads.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import islice

from labkit.engines import connect
from labkit.load import (
    ExactLengths,
    Run,
    as_load,
    closed_loop,
    compare,
    error_table,
    gamma,
    open_loop,
    poisson,
    probe,
    read_trace,
    scaled,
    settings_of,
    traces_dir,
)
from labkit.request import Handler, Request

LoadRun = Callable[[], Awaitable[Run]]


def held_out(engine: Handler, make: ExactLengths, capacity: float, seed: int) -> Iterator[tuple[str, LoadRun]]:
    """The held-out loads by name. `capacity` is roughly how many mixed requests the engine finishes per second."""

    def mixed(n: int) -> list[Request]:
        rng = random.Random(f"{seed} {n}")  # the same lengths at every call
        return [make(rng.randrange(40, 500), rng.randrange(8, 64)) for _ in range(n)]

    for prompt in (90, 250, 600, 1000):
        yield f"alone, {prompt} → 24", lambda p=prompt: closed_loop(engine, [make(p, 24) for _ in range(8)], 1)  # type: ignore[misc]
    for n in (3, 6, 12, 24):
        yield f"closed loop of {n}", lambda n=n: closed_loop(engine, mixed(6 * n), n)  # type: ignore[misc]
    for share in (0.3, 0.6, 0.8):
        yield (
            f"Poisson at {share:.0%}",
            lambda s=share: open_loop(engine, zip(islice(poisson(s * capacity, seed), 60), mixed(60), strict=True)),  # type: ignore[misc]
        )
    if os.environ.get("LABKIT_TRACES"):
        conversations = read_trace(traces_dir() / "azure2023_conv.csv.gz")[:80]
        small = scaled(conversations, rate=capacity / 2, min_input=8, max_input=1500, max_output=200, length_factor=0.2)
        yield "Azure 2023, scaled, 50%", lambda: open_loop(engine, as_load(small, make))
    else:
        print("LABKIT_TRACES names no folder of traces: the real trace is left out")
    yield (
        "bursts (CV 3) at 50%",
        lambda: open_loop(engine, zip(islice(gamma(capacity / 2, 3.0, seed), 60), mixed(60), strict=True)),
    )


async def measure(model: str, seed: int) -> None:
    """One round: probe, fit, held-out loads, table."""
    async with await connect("vllm", model=model) as engine:
        make = ExactLengths(str(engine.tokenizer_path), seed)
        settings = await settings_of(engine)
        calibration = await probe(engine, make)
        print(f"{engine.provenance.caption()}\n{settings}\n{calibration.model}")
        print(
            f"fitted to {len(calibration.errors)} points: median error {calibration.median_error:.1%}, "
            f"largest {max(map(abs, calibration.errors)):.1%}"
        )
        points = (*calibration.steps, *calibration.first_tokens, *calibration.volleys)
        for point, error in zip(points, calibration.errors, strict=True):
            print(f"  {error:+7.1%}  {point}")
        print()
        warm = await closed_loop(engine, [make(270, 36) for _ in range(64)], 16)
        capacity = len(warm.samples) / warm.seconds
        rows, again = [], []
        for name, run in held_out(engine, make, capacity, seed):
            rows += compare(name, await run(), calibration.model, settings)
            again += compare(name, await run(), calibration.model, settings)
        # Treat the first run as a forecast of the second.
        apart = [replace(second, forecast=first.measured) for first, second in zip(rows, again, strict=True)]
        for row, other in zip(rows, apart, strict=True):
            values = f"measured {row.measured:10.4g}  forecast {row.forecast:10.4g}  {row.error:+7.1%}"
            print(f"{row.load:24} {row.metric:16} {values}   second run {-other.error:+7.1%}")
        print(f"\n{'':22} {'forecast':^17}   {'a second run':^17}")
        print(f"{'metric':16} {'loads':>5} {'median':>8} {'p95':>8}   {'median':>8} {'p95':>8}   worst forecast")
        for error, noise in zip(error_table([*rows, *again]), error_table(apart), strict=True):
            print(
                f"{error.metric:16} {error.loads:5} {error.median:8.1%} {error.p95:8.1%}   "
                f"{noise.median:8.1%} {noise.p95:8.1%}   {error.worst.load}"
            )


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    for seed in range(given.rounds):
        asyncio.run(measure(given.model, seed))


if __name__ == "__main__":
    main()
