"""How many requests per second the modelled engine simulates: the handler path, the compiled path, and Vidur if given.

    python -m benchmarks.modelled_engine [--trace FILE] [--requests N] [--vidur PYTHON] [--json FILE]

The trace is Azure's conversation trace of 2023 (`TIMESTAMP,ContextTokens,GeneratedTokens`, gzip) if `../shared/traces` or
`--trace` has it, else a random one with the same means. The engine has the shape of an 8-billion-parameter model on a GPU
with 80 GB. All times are CPU seconds of one process (`time.process_time`), so that other programs on the machine matter
little. Each figure is the median over turns.

Vidur (Agrawal et al., MLSys 2024) is on the package index, but its tables of profiled kernels are not. So its event loop and
its Sarathi scheduler (chunked prefill) run with a stand-in for its predictor, which does the same few sums as our latency
model, and with its metrics off. Both make Vidur faster than it really is, so its figure is an upper bound. It needs an
environment of its own: `uv venv v && uv pip install -p v vidur`, then `--vidur v/bin/python`.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from labkit.engines.modelled import EngineSettings, ModelledEngine, Trace, simulate
from labkit.latency import LatencyModel
from labkit.request import Completion, Message, Request, complete, run_virtual

REPO = Path(__file__).resolve().parents[1]
TRACE = REPO.parent / "shared" / "traces" / "azure2023_conv.csv.gz"
# 16 GB of weights at 3.35 TB/s, 16 GFLOP a token at 500 TFLOP/s; 128 KiB of KV cache a token, 0.5 MFLOP a pair.
MODEL = LatencyModel(
    step_s=3e-3,
    sequence_s=2e-5,
    linear_s=3.2e-5,
    weights_s=4.8e-3,
    pair_s=1e-9,
    kv_s=3.9e-8,
    request_s=2e-3,
    prompt_token_s=1e-6,
)
SETTINGS = EngineSettings(num_blocks=27_000, block_size=16, max_num_seqs=256, max_num_batched_tokens=2048)


def azure(path: Path) -> Trace:
    """The trace in `path`, with arrival times in seconds from the first one."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    prompts, outputs = (np.array([int(row[name]) for row in rows]) for name in ("ContextTokens", "GeneratedTokens"))
    return Trace(np.array(times) - times[0], prompts, outputs)


def synthetic(requests: int = 11_619) -> Trace:
    """Poisson arrivals and geometric lengths with the Azure trace's means."""
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(1 / 5.83, requests))
    return Trace(arrival, rng.geometric(1 / 1264, requests), rng.geometric(1 / 206, requests))


def first(trace: Trace, count: int) -> Trace:
    """The first `count` requests."""
    return Trace(trace.arrival[:count], trace.input_tokens[:count], trace.output_tokens[:count])


def by_handler(trace: Trace) -> list[Completion]:
    """Run the trace through `ModelledEngine`, with one chunk per token."""

    async def main() -> list[Completion]:
        engine = ModelledEngine(MODEL, SETTINGS)
        tasks = []
        unique = 0
        for at, prompt, output in zip(trace.arrival, trace.input_tokens, trace.output_tokens, strict=True):
            await asyncio.sleep(float(at) - asyncio.get_running_loop().time())
            ids = range(unique, unique + int(prompt))
            unique += int(prompt)
            request = Request((Message("user", "x"),), max_tokens=int(output), extra={"prompt_token_ids": ids})
            tasks.append(asyncio.create_task(complete(engine, request)))
        return list(await asyncio.gather(*tasks))

    return run_virtual(main())


def cpu_seconds(action: Callable[[], Any], turns: int) -> tuple[float, Any]:
    """Median CPU seconds of `action`, and its last result."""
    spent, result = [], None
    for _ in range(turns):
        begin = time.process_time()
        result = action()
        spent.append(time.process_time() - begin)
    return statistics.median(spent), result


def by_vidur(python: str, trace: Trace) -> dict[str, Any]:
    """Run the trace through Vidur, by the `python` of Vidur's own environment.

    Raises `SystemExit` with the end of its error output when Vidur fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "trace.csv"
        with rows.open("w") as file:
            file.write("Date,Time,PromptTokenCount,CompletionTokenCount\n")
            for at, prompt, output in zip(trace.arrival, trace.input_tokens, trace.output_tokens, strict=True):
                file.write(f"all,{at},{prompt},{output}\n")
        job = {"trace": str(rows), "output": folder, "model": asdict(MODEL), "settings": asdict(SETTINGS)}
        script = Path(__file__).with_name("modelled_engine_vidur.py")
        done = subprocess.run(
            [python, str(script), json.dumps(job)], capture_output=True, text=True, check=False, cwd=folder, timeout=1800
        )
    if done.returncode:
        raise SystemExit(f"Vidur failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--requests", type=int, default=1000, help="slice on which all paths are compared")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--vidur", help="a Python that has the package vidur")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    whole = azure(args.trace) if args.trace.exists() else synthetic()
    source = args.trace.name if args.trace.exists() else "a synthetic trace"
    part = first(whole, args.requests)
    simulate(first(whole, 2), MODEL, SETTINGS)  # compile, or load what was compiled before

    results: dict[str, Any] = {"trace": source, "requests": len(part), "tokens": int(part.output_tokens.sum())}
    seconds, outcome = cpu_seconds(lambda: simulate(part, MODEL, SETTINGS), max(args.turns, 5))
    results["compiled_requests_per_s"] = len(part) / seconds
    whole_seconds, whole_outcome = cpu_seconds(lambda: simulate(whole, MODEL, SETTINGS), args.turns)
    results["compiled_whole_trace"] = {"requests": len(whole), "seconds": whole_seconds, "steps": whole_outcome.steps}
    seconds, answers = cpu_seconds(lambda: by_handler(part), args.turns)
    results["handler_requests_per_s"] = len(part) / seconds
    ends = np.array([answer.done.timing.done for answer in answers])
    results["largest_difference_of_an_end_s"] = float(np.abs(ends - outcome.done).max())
    results["compiled_over_handler"] = results["compiled_requests_per_s"] / results["handler_requests_per_s"]
    if args.vidur:
        vidur = by_vidur(args.vidur, part)
        results["vidur"] = vidur
        results["vidur_requests_per_s"] = len(part) / vidur["cpu_seconds"]
        results["compiled_over_vidur"] = results["compiled_requests_per_s"] / results["vidur_requests_per_s"]

    print(f"{source}: {len(part):,} requests, {results['tokens']:,} output tokens, {outcome.steps:,} steps")
    print(f"  handler path   {results['handler_requests_per_s']:12,.0f} requests per CPU second")
    print(
        f"  compiled path  {results['compiled_requests_per_s']:12,.0f}   {results['compiled_over_handler']:,.0f} times the "
        f"handler path; ends differ by at most {results['largest_difference_of_an_end_s']:.1e} s"
    )
    if args.vidur:
        print(
            f"  Vidur {results['vidur']['version']:8} {results['vidur_requests_per_s']:12,.0f}   at most (no predictor, no "
            f"metrics); the compiled path is {results['compiled_over_vidur']:,.0f} times as fast"
        )
        print(f"    (its last answer ends at {results['vidur']['simulated_s']:.1f} s, ours at {outcome.done.max():.1f} s)")
    else:
        print("  Vidur          not run: give --vidur PYTHON (see the top of this file)")
    print(f"whole trace, compiled: {len(whole):,} requests, {whole_outcome.steps:,} steps in {whole_seconds:.2f} CPU s")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
