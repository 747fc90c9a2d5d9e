"""What choosing takes: which turns, examples, chunks and sentences of a prompt are sent.

    python -m benchmarks.shrink_selection [--rounds 15] [--live]

Each line is a ratio to a baseline that is timed beside it, in turns; figures are medians.

- the exact knapsack, 200 chunks and 8,000 tokens, beside `scipy.optimize.milp` (HiGHS), which solves the same problem;
- `Sentences` and `Chunks` by nearness, with new texts and with known ones, beside the embedder alone on the same texts;
- `TokenBudget` beside counting the same texts once, and `Window`, which counts nothing;
- the choice of 8 of 1,000 examples that are encoded already, nearest and with diversity (MMR), beside encoding the question.

With `--live`, also the time of `Sentences` beside the prefill that it saves on the live small and large model (time to the
first token of one output token, nothing from the prefix cache): above 1 the caller waits longer than before.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from labkit.embeddings import embedder
from labkit.engines import Engine, connect
from labkit.lab import examples
from labkit.request import Message, Request, complete
from labkit.shrink import (
    NOTHING,
    ByNearness,
    Chunks,
    Diverse,
    FewShot,
    Nearest,
    Sentences,
    Shot,
    TokenBudget,
    Window,
    knapsack,
    lab_tokens,
    sentences,
)

Timed = Callable[[], Awaitable[object] | object]
_POLICY = "Decide the return by this policy."


def policy(tokens: int, seed: int = 0) -> tuple[Message, ...]:
    """A case under its policy and the rules of others, of about `tokens` tokens."""
    first, *others = examples("test", "policy", 200, seed)
    system = first.messages[0].content
    for other in others:
        if lab_tokens(system) >= tokens:
            break
        system += other.messages[0].content.partition(_POLICY)[2]
    return Message("system", system), first.messages[1]


async def seconds(work: Timed) -> float:
    """How long one call of `work` takes."""
    started = time.perf_counter()
    found = work()
    if asyncio.iscoroutine(found):
        await found
    return time.perf_counter() - started


async def beside(name: str, work: Timed, base: str, baseline: Timed, rounds: int, per: float = 1.0) -> None:
    """Print the median time of `work`, in ms (by `per` thousand tokens), and its ratio to that of `baseline`."""
    pairs = [(await seconds(work), await seconds(baseline)) for _ in range(rounds + 1)][1:]  # the first warms up
    took = 1000 * statistics.median(a for a, _ in pairs) / per
    print(f"| {name} | {took:.2f} | {base} | {statistics.median(a / b for a, b in pairs):.2f} |", flush=True)


async def prefill(engine: Engine, messages: tuple[Message, ...]) -> float:
    """Seconds until the one token that is asked for is done, with nothing read from the prefix cache.

    Not its TTFT: where that token has no text (the end, or the start of a thought), there is none.
    """
    asked = Request(messages, max_tokens=1, extra={"cache_salt": secrets.token_hex(8)})
    found = (await complete(engine, asked)).done.timing.e2e
    assert found is not None
    return found


async def choosing(rounds: int) -> None:
    """The table without an engine."""
    minilm, rng = embedder(), np.random.default_rng(0)
    values, sizes = rng.random(200), rng.integers(20, 400, 200)
    print("| what | ms, a call or 1,000 tokens | beside | ratio |\n|---|--:|---|--:|")
    limit = LinearConstraint(sizes[None, :].astype(float), ub=8_000.0)
    await beside(
        "knapsack of 200 chunks, 8,000 tokens (a call)", lambda: knapsack(values.tolist(), sizes.tolist(), 8_000),
        "scipy's milp", lambda: milp(-values, constraints=limit, integrality=np.ones(200), bounds=Bounds(0, 1)), rounds,
    )  # fmt: skip
    case = policy(1_200)
    per = sum(lab_tokens(message.content) for message in case) / 1000
    text = case[0].content.partition(_POLICY)[2].strip()
    parts = [text[a:b].strip() for a, b in sentences(text)]

    def lever() -> Sentences:
        return Sentences(minilm, tokens=300, begin=_POLICY, end="")

    known = lever()
    await beside(
        "Sentences, all of them new", lambda: lever().shrink(Request(case)), "the embedder alone",
        lambda: minilm.encode([case[1].content, *parts]), rounds, per,
    )  # fmt: skip
    await beside(
        "Sentences that it has seen", lambda: known.shrink(Request(case)), "the embedder alone",
        lambda: minilm.encode([case[1].content, *parts]), rounds, per,
    )  # fmt: skip
    block = "\n".join(f"<chunk>{part}</chunk>" for part in parts)
    chunked = (Message("system", block), case[1])
    await beside(
        "Chunks by nearness, all of them new",
        lambda: Chunks(300, ByNearness(minilm)).shrink(Request(chunked)), "the embedder alone",
        lambda: minilm.encode([case[1].content, *parts]), rounds, per,
    )  # fmt: skip
    talk = tuple(message for n in range(40) for message in (Message("user", parts[n]), Message("assistant", parts[n + 1])))
    asked, size = Request((*talk, case[1])), sum(lab_tokens(message.content) for message in talk) / 1000
    for name, history in (("TokenBudget", TokenBudget(300, protect=NOTHING)), ("Window", Window(4, protect=NOTHING))):
        await beside(
            name, lambda lever=history: lever.shrink(asked), "counting once",  # type: ignore[misc]
            lambda: [lab_tokens(message.content) for message in asked.messages], rounds, size,
        )  # fmt: skip
    pool = tuple(Shot(f"{part} {n}", "yes") for n in range(1_000 // len(parts) + 1) for part in parts)[:1_000]
    for name, pick in (("nearest", Nearest(minilm)), ("with diversity", Diverse(minilm))):
        few = FewShot(pool, k=8, pick=pick)
        await beside(
            f"8 of 1,000 examples, {name} (a call)", lambda lever=few: lever.picked(Request(case)), "encoding the question",  # type: ignore[misc]
            lambda: minilm.encode([case[1].content]), rounds,
        )  # fmt: skip


async def saving(rounds: int) -> None:
    """The table with live models."""
    print("\n| tokens | model | stayed | ms saved by the prefill | ms of Sentences | ratio |\n|--:|---|--:|--:|--:|--:|")
    for name in ("small", "large"):
        async with await connect("vllm", name) as engine:
            for length in (600, 1_200):
                took, saved, stayed = [], [], []
                for number in range(rounds + 1):
                    case = policy(length, number)
                    lever = Sentences(embedder(), tokens=200, begin=_POLICY, end="")  # it has seen no sentence yet
                    started = time.perf_counter()
                    after = (await lever.shrink(Request(case))).after
                    took.append(time.perf_counter() - started)
                    saved.append(await prefill(engine, case) - await prefill(engine, after))
                    stayed.append(sum(lab_tokens(m.content) for m in after) / sum(lab_tokens(m.content) for m in case))
                ms, gain = (1000 * statistics.median(each[1:]) for each in (took, saved))
                ratio = f"{ms / gain:.1f}" if gain > 0 else "nothing saved"
                print(f"| {length} | {name} | {statistics.mean(stayed):.0%} | {gain:.1f} | {ms:.1f} | {ratio} |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--live", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(choosing(arguments.rounds))
    if arguments.live:
        asyncio.run(saving(arguments.rounds))


if __name__ == "__main__":
    main()
