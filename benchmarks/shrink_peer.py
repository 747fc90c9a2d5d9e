"""Dropping tokens, beside LLMLingua and beside random deletion and truncation, at the length that LLMLingua reached.

    python -m benchmarks.shrink_peer --peer PYTHON [--n 30] [--rates 0.8 0.6] [--scorer reader] [--target desk]

LLMLingua 0.2.2 wants an older transformers than ours. PYTHON is the python of an environment of its own:
`python -m venv FOLDER; FOLDER/bin/pip install llmlingua==0.2.2 "transformers==4.46.3"`. Both use the same language model,
the lab's `reader` (`--scorer small`: the small model, which was never taught to predict prompts).

Each test example is shortened by LLMLingua at the asked rate, and then by each of ours to at most as many tokens, so that
each row compares answers at equal length, paired by example. `--target` answers (the adapter `desk`, which was taught
telegraph style, or the plain large model), and the lab's grader judges. In family
"long" (returns under a long policy) the customer's question stays and the policy is shortened for it: LongLLMLingua beside
`ByPerplexity(question=True)`. "tokens" is the share that stayed. Speed is processor time on one thread.

LLMLingua-2 (arXiv 2403.12968: 3 to 6 times as fast as earlier compressors, 1.6 to 2.9 times end to end at ratios of 2 to 5)
and Provence (arXiv 2501.16214: pruning of retrieved sentences at nearly no cost beside a reranker) were not run: their
weights are on a hub only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path

import numpy as np
import torch

from labkit.lab import Deck, Example, answer, answerer, examples, families, grade, model_path, policy_example, reader_path
from labkit.request import Message, Request
from labkit.shrink import NOTHING, ByPerplexity, DropRandom, KeepDrop, TransformersScorer, Truncate, WordDropper, lab_tokens

LONG = "long"
PEER = "LLMLingua"
OURS = "by perplexity"


@dataclass(frozen=True, slots=True)
class Case:
    """One example at one asked rate."""

    family: str
    rate: float
    example: Example


@dataclass(frozen=True, slots=True)
class Made:
    """A shortened prompt: its messages, the tokens of their texts, and the processor's seconds."""

    messages: tuple[Message, ...]
    tokens: int
    seconds: float


def size(messages: Sequence[Message]) -> int:
    """Tokens of the messages' texts."""
    return sum(lab_tokens(m.content) for m in messages)


def _long(number: int) -> Example:
    """Policy case `number`, under a long policy."""
    rng = random.Random(f"peer/{number}")
    system, told, right, steps = policy_example(Deck("test", rng), rng.randrange(3, 9), rng.randrange(6, 24))
    messages = (Message("system", system), Message("user", told))
    return Example(f"peer-{number}", "policy", "hard", messages, right, steps, 96)


def cases(n: int, rates: Sequence[float], seed: int) -> list[Case]:
    """`n` test examples of each family, at each rate."""
    found = [Case(f, rate, e) for f in families() for e in examples("test", f, n, seed + 31) for rate in rates]
    return found + [Case(LONG, rate, _long(10_000 + seed + i)) for i in range(n) for rate in rates]


def theirs(python: str, model: str, asked: Sequence[Case], steps: bool = True) -> list[Made]:
    """The cases, shortened by LLMLingua; with `steps` it may take shorter steps than by default.

    Raises `RuntimeError` with its errors where it fails.
    """
    prompts = [
        {
            "texts": [m.content for m in c.example.messages],
            "rate": c.rate,
            "question": c.family == LONG,
            "steps": steps,
        }
        for c in asked
    ]
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job.write_text(json.dumps({"model": model, "prompts": prompts}))
        script = str(Path(__file__).with_name("shrink_peer_llmlingua.py"))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [python, script, str(job), str(result)],
            env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"LLMLingua failed:\n{done.stderr[-3000:]}")
        rows = json.loads(result.read_text())
    failed = [row["failed"] for row in rows if row["failed"]]
    if failed:
        print(f"LLMLingua raised on {len(failed)} of {len(rows)} prompts, which went as they were: {failed[0]:.200}")
    made = []
    for case, row in zip(asked, rows, strict=True):
        messages = tuple(replace(m, content=t) for m, t in zip(case.example.messages, row["texts"], strict=True))
        made.append(Made(messages, size(messages), row["seconds"]))
    return made


def ours(name: str, case: Case, rate: float, scorer: TransformersScorer, seed: int) -> Made:
    """The case, shortened by one of ours to `rate` of its tokens."""
    roles = ("system",) if case.family == LONG else ("system", "user")
    question = case.family == LONG
    rate = min(1.0, rate)
    lever: WordDropper
    match name:
        case "by perplexity":
            lever = ByPerplexity(scorer, rate=rate, question=question)
        case "the same, nothing protected":
            lever = ByPerplexity(scorer, rate=rate, question=question, protect=NOTHING)
        case "keep/drop":
            lever = KeepDrop(rate=rate, roles=roles)
        case "random":
            lever = DropRandom(rate=rate, seed=seed, roles=roles)
        case "truncate":
            lever = Truncate(rate=rate, roles=roles)
        case _:
            raise ValueError(name)
    started = time.process_time()
    shrunk = asyncio.run(lever.shrink(Request(case.example.messages)))
    seconds = time.process_time() - started
    return Made(shrunk.after, size(shrunk.after), seconds)


NAMES = (OURS, "the same, nothing protected", "keep/drop", "random", "truncate")


def difference(a: Sequence[bool], b: Sequence[bool], seed: int = 0) -> tuple[float, float, float, float]:
    """Share right of `a` minus that of `b`, paired: the difference, its 95 % bootstrap interval, McNemar's exact p."""
    gaps = np.array(a, dtype=float) - np.array(b, dtype=float)
    rng = np.random.default_rng(seed)
    means = rng.choice(gaps, (4000, len(gaps))).mean(1)
    better, worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    n, k = better + worse, min(better, worse)
    p = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n) if n else 1.0
    return float(gaps.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)), p


def keeps_the_rate(python: str, folder: str, scorer: TransformersScorer, rate: float = 0.5, n: int = 5) -> None:
    """Print asked against got by the prompt's length, for LLMLingua and for ours. Nobody answers."""
    print(f"\nAsked for {rate:.0%} of the tokens, got (the mean of {n} prompts):\n")
    print(
        "| tokens of the prompt | LLMLingua | LLMLingua, shorter steps | by perplexity | keep/drop |\n|--:|--:|--:|--:|--:|"
    )
    for filler in (0, 4, 20, 120, 600):
        asked = []
        for i in range(n):
            deck = Deck("test", random.Random(f"{filler}/{i}"))
            system, told, right, _ = policy_example(deck, 3, filler)
            messages = (Message("system", system), Message("user", told))
            asked.append(Case("policy", rate, Example(f"rate-{filler}-{i}", "policy", "hard", messages, right)))
        whole = sum(size(c.example.messages) for c in asked)
        rows = [theirs(python, folder, asked, steps) for steps in (False, True)]
        rows += [[ours(name, c, rate, scorer, 0) for c in asked] for name in (OURS, "keep/drop")]
        print(f"| {whole // n} | " + " | ".join(f"{sum(m.tokens for m in made) / whole:.0%}" for made in rows) + " |")


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", required=True, help="a python that has llmlingua 0.2.2")
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.8, 0.6])
    parser.add_argument("--scorer", choices=["reader", "small"], default="reader")
    parser.add_argument("--target", default="desk", help="who answers: a model or an adapter of the lab")
    parser.add_argument("--folder", type=Path, help="another folder for it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = str(reader_path() if arguments.scorer == "reader" else model_path("small"))
    scorer = TransformersScorer(folder)
    asked = cases(arguments.n, arguments.rates, arguments.seed)
    made = {PEER: theirs(arguments.peer, folder, asked)}
    ours(OURS, asked[0], 0.5, scorer, 0)  # loads the model
    ours("keep/drop", asked[0], 0.5, scorer, 0)
    for name in NAMES:
        made[name] = [
            ours(name, case, peer.tokens / size(case.example.messages), scorer, arguments.seed)
            for case, peer in zip(asked, made[PEER], strict=True)
        ]
    made["whole prompt"] = [Made(c.example.messages, size(c.example.messages), 0.0) for c in asked]
    model, tokenizer = answerer(arguments.target, arguments.folder)
    right: dict[str, list[bool]] = {}
    for name, prompts in made.items():
        order = sorted(range(len(asked)), key=lambda i: (asked[i].example.max_tokens, prompts[i].tokens))
        sent = [replace(asked[i].example, messages=prompts[i].messages) for i in order]
        found = dict(zip(order, answer(model, tokenizer, sent, batch_size=64), strict=True))
        right[name] = [grade(asked[i].example, found[i].text) for i in range(len(asked))]
        print(f"{name}: answered", file=sys.stderr, flush=True)

    print(
        f"scorer {arguments.scorer}, {arguments.n} examples a family, seed {arguments.seed}; right answers, % (tokens, %)\n"
    )
    columns = ["whole prompt", PEER, *NAMES]
    print("| family | asked | " + " | ".join(columns) + " | ours − LLMLingua | p |")
    print("|---|--:|" + "--:|" * (len(columns) + 2))
    for family in (*families(), LONG):
        for rate in arguments.rates:
            at = [i for i, c in enumerate(asked) if c.family == family and c.rate == rate]
            whole = sum(made["whole prompt"][i].tokens for i in at)
            cells = [
                f"{100 * sum(right[name][i] for i in at) / len(at):.0f} "
                f"({100 * sum(made[name][i].tokens for i in at) / whole:.0f})"
                for name in columns
            ]
            gap, low, high, p = difference([right[OURS][i] for i in at], [right[PEER][i] for i in at])
            print(
                f"| {family} | {rate:.0%} | "
                + " | ".join(cells)
                + f" | {100 * gap:+.0f} ({100 * low:+.0f} to {100 * high:+.0f}) | {p:.2g} |"
            )
    print("\n| | processor seconds per 1,000 tokens | LLMLingua = 1 |\n|---|--:|--:|")
    whole = sum(m.tokens for m in made["whole prompt"])
    for name in (PEER, *NAMES):
        each = 1000 * sum(m.seconds for m in made[name]) / whole
        print(f"| {name} | {each:.3f} | {each * whole / 1000 / sum(m.seconds for m in made[PEER]):.3f} |")
    held = sum(m.tokens > peer.tokens for m, peer in zip(made[OURS], made[PEER], strict=True))
    print(f"\nIn {held} of {len(asked)} prompts protected text kept ours longer than LLMLingua's.")
    keeps_the_rate(arguments.peer, folder, scorer)
    shown = random.Random(arguments.seed).choice([i for i, c in enumerate(asked) if c.family == "policy"])
    print("\nOne prompt:")
    for name in columns:
        print(f"- {name}: " + " ¦ ".join(m.content for m in made[name][shown].messages))


if __name__ == "__main__":
    main()
