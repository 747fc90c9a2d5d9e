"""The lab's load generator and vLLM's own serving benchmark send the same load to the same engine, in turns.

    python -m benchmarks.load_peer [--rounds 3] [--concurrency 4] [--requests 60]

Both send prompts and answers of the same lengths in a closed loop; the words are new for each round and tool. Prints each
round's median TTFT and TPOT and the ratio of the medians over the rounds. It also prints how far the rounds of one tool lie
apart: a ratio within that noise says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.engines import Engine, connect
from labkit.latency import percentile
from labkit.load import ExactLengths, closed_loop
from labkit.request import Request

# vLLM's own command line asks for metadata of a distribution called vllm, which the CPU build does not have.
_PEER = (
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
    "parser = FlexibleArgumentParser()\nadd_cli_args(parser)\nmain(parser.parse_args())\n"
)


@dataclass(frozen=True, slots=True)
class Medians:
    """Median TTFT and TPOT of one round, in milliseconds."""

    ttft: float
    tpot: float


async def ours(engine: Engine, requests: Sequence[Request], concurrency: int) -> Medians:
    """One round with the lab's closed loop."""
    run = await closed_loop(engine, requests, concurrency)
    ttft, tpot = (percentile(values, 50) for values in ([s.ttft for s in run.samples], [s.tpot for s in run.samples]))
    assert ttft is not None
    assert tpot is not None
    return Medians(1000 * ttft, 1000 * tpot)


def theirs(engine: Engine, requests: Sequence[Request], concurrency: int) -> Medians:
    """One round with `vllm bench serve`, as a process of its own. Raises `RuntimeError` with its errors when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": r.messages[0].content}) + "\n" for r in requests))
        command = [
            *(sys.executable, "-c", _PEER),
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
            *(
                "--base-url",
                engine.url.removesuffix("/v1"),
                "--model",
                engine.model,
                "--tokenizer",
                str(engine.tokenizer_path),
            ),
            *("--dataset-name", "custom", "--dataset-path", str(prompts), "--disable-shuffle", "--skip-chat-template"),
            *("--custom-output-len", str(requests[0].max_tokens), "--num-prompts", str(len(requests))),
            *("--max-concurrency", str(concurrency), "--ignore-eos", "--temperature", "0", "--disable-tqdm"),
            *("--extra-body", json.dumps({"skip_special_tokens": False})),
            *("--percentile-metrics", "ttft,tpot", "--save-result", "--result-dir", folder, "--result-filename", "r.json"),
        ]
        environment = {**os.environ, "OPENAI_API_KEY": engine.api_key}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise RuntimeError(f"vllm bench serve failed:\n{done.stderr[-3000:]}")
        found = json.loads((Path(folder) / "r.json").read_text())
        return Medians(found["median_ttft_ms"], found["median_tpot_ms"])


async def compare(rounds: int, concurrency: int, count: int) -> dict[str, list[Medians]]:
    """The rounds of each tool, run in turns, each round with new prompts."""
    found: dict[str, list[Medians]] = {"labkit": [], "vllm bench serve": []}
    async with await connect("vllm", model="small") as engine:
        make = ExactLengths(str(engine.tokenizer_path))
        await closed_loop(engine, [make(200, 32) for _ in range(2 * concurrency)], concurrency)
        for _ in range(rounds):
            found["labkit"].append(await ours(engine, [make(200, 32) for _ in range(count)], concurrency))
            load = [make(200, 32) for _ in range(count)]
            found["vllm bench serve"].append(await asyncio.to_thread(theirs, engine, load, concurrency))
    return found


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--requests", type=int, default=60)
    given = parser.parse_args()
    found = asyncio.run(compare(given.rounds, given.concurrency, given.requests))
    for metric in ("ttft", "tpot"):
        values = {tool: [getattr(m, metric) for m in rounds] for tool, rounds in found.items()}
        for tool, each in values.items():
            print(f"median {metric.upper()} by {tool:17}: " + ", ".join(f"{v:.2f}" for v in each) + " ms")
        mine, peer = (statistics.median(each) for each in values.values())
        noise = max(max(each) / min(each) - 1 for each in values.values())
        print(f"  labkit / vllm bench serve: {mine / peer:.3f}; one tool's own rounds differ by up to {noise:.1%}\n")


if __name__ == "__main__":
    main()
