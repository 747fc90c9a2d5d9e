"""What watching an engine's KV blocks costs in throughput.

    python benchmarks/block_viewer.py [--rounds 12] [--people 16] [--requests 64]

Three ways are compared: a live engine with the stock scheduler; one that could be watched, but is not; and one that is
watched at 10 frames a second by the process that also sends the load, as in a notebook. The engines run side by side. Each
round runs all ways in a new random order, so that a busy machine disturbs all alike. A ratio is a round's tokens per second
over those of the stock engine in the same round; target: ≥ 0.95. The table also shows the processor time of the engine's
processes and of this one, which is steadier than the clock while other programs run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from labkit.engines import Engine, connect, running_engines
from labkit.kvcache import watchable
from labkit.load import ExactLengths, closed_loop
from labkit.workbook import Seen, watch_blocks

SIZES = {"num_gpu_blocks_override": 512, "block_size": 32, "max_model_len": 1024}


@asynccontextmanager
async def unwatched(_: Engine) -> AsyncIterator[Seen]:
    """Watch nothing: an empty `Seen`."""
    yield Seen()


def processor_time(pid: int) -> float:
    """Processor seconds that the engine's processes have used so far."""
    leader = psutil.Process(pid)
    times = [process.cpu_times() for process in (leader, *leader.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    options = parser.parse_args()
    async with (
        await connect("vllm", "small", **SIZES) as stock,
        await connect("vllm", "small", **SIZES, **watchable(fps=10)) as watched,
    ):
        ways = {"stock": (stock, unwatched), "unwatched": (watched, unwatched), "watched": (watched, watch_blocks)}
        make, order = ExactLengths(str(stock.tokenizer_path), 1), random.Random(1)
        pids = {info.url: info.pid for info in await running_engines()}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        engine_s, own_s = ({name: [] for name in ways} for _ in range(2))
        fps: list[float] = []
        for number in range(options.rounds + 1):
            for name in order.sample(list(ways), len(ways)):
                engine, watch = ways[name]
                load = [make(64, 100 + 50 * (n % 4)) for n in range(options.requests)]
                before = processor_time(pids[engine.url]), time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):  # the picture's plain text
                    async with watch(engine) as seen:
                        run = await closed_loop(engine, load, options.people)
                if number:  # the first round warms up
                    tokens = sum(sample.usage.output_tokens for sample in run.samples)
                    rates[name].append(tokens / run.seconds)
                    engine_s[name].append(1e6 * (processor_time(pids[engine.url]) - before[0]) / tokens)
                    own_s[name].append(1e6 * (time.process_time() - before[1]) / tokens)
                    fps += [seen.fps] if seen.fps else []
    print(f"{stock.provenance.caption()}; {options.requests} requests, {options.people} at once, {options.rounds} rounds")
    for name, found in rates.items():
        ratios = [mine / base for mine, base in zip(found, rates["stock"], strict=True)]
        print(
            f"{name:10}{statistics.median(found):8.0f} tok/s   ratio: median {statistics.median(ratios):.3f}, "
            f"mean {statistics.mean(ratios):.3f} ± {statistics.stdev(ratios) / len(ratios) ** 0.5:.3f}, "
            f"range {min(ratios):.3f} to {max(ratios):.3f}; processor time a token, median: "
            f"engine {statistics.median(engine_s[name]):.0f} µs, this process {statistics.median(own_s[name]):.0f} µs"
        )
    print(f"frames a second: median {statistics.median(fps):.1f}, least {min(fps):.1f}")


if __name__ == "__main__":
    asyncio.run(main())
