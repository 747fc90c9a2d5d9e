"""What shortening a prompt takes, as a ratio to the prefill that it saves.

    python -m benchmarks.shrink_speed [--tokens 300 1200] [--rounds 7] [--rate 0.5]

The prompts are cases under a long policy. Each round takes, in turns, the time of each shrinker at `--rate` and, beside it,
the live prefill (time to the first token of one output token, nothing cached) of the whole prompt and of the shortened one
on the small and on the large model. The ratio is the shrinker's time to the time that the shorter prompt saves: above 1 the
caller waits longer than before. `ByPerplexity` is timed on live vLLM (the reader), and on transformers in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from random import Random

from labkit.engines import Engine, connect
from labkit.lab import Deck, policy_example, reader_path
from labkit.request import Message, Request, complete
from labkit.shrink import ByPerplexity, DropRandom, KeepDrop, LiveScorer, Shrinker, TransformersScorer, Truncate, lab_tokens


def prompt(tokens: int, seed: int) -> tuple[Message, ...]:
    """A case under a policy, of about `tokens` tokens."""
    rng = Random(f"{tokens}/{seed}")
    system, told, _, _ = policy_example(Deck("test", rng), 6, max(1, (tokens - 110) // 11))
    return Message("system", system), Message("user", told)


async def prefill(engine: Engine, messages: Sequence[Message]) -> float:
    """Seconds until the one token that is asked for is done, with nothing read from the prefix cache.

    Not its TTFT: where that token has no text (the end, or the start of a thought), there is none.
    """
    asked = Request(tuple(messages), max_tokens=1, extra={"cache_salt": secrets.token_hex(8)})
    found = (await complete(engine, asked)).done.timing.e2e
    assert found is not None
    return found


async def measure(lengths: Sequence[int], rounds: int, rate: float) -> None:
    """Time all and print the table."""
    reader = await connect("vllm", str(reader_path()))
    models = {name: await connect("vllm", name) for name in ("small", "large")}
    local = TransformersScorer(str(reader_path()))
    shrinkers: dict[str, Shrinker] = {
        "ByPerplexity, live vLLM": ByPerplexity(LiveScorer(reader), rate=rate, roles=("system",)),
        "ByPerplexity, transformers": ByPerplexity(local, rate=rate, roles=("system",)),
        "the same, with the question": ByPerplexity(local, rate=rate, question=True),
        "KeepDrop": KeepDrop(rate=rate, roles=("system",)),
        "DropRandom": DropRandom(rate=rate, roles=("system",)),
        "Truncate": Truncate(rate=rate, roles=("system",)),
    }
    print(
        f"| tokens | shrinker | stayed | ms per 1,000 tokens | {' | '.join(f'ratio, {m} model' for m in models)} |\n"
        f"|--:|---|--:|--:|{'--:|' * len(models)}"
    )
    try:
        for length in lengths:
            took: dict[str, list[float]] = defaultdict(list)
            saved: dict[tuple[str, str], list[float]] = defaultdict(list)
            stayed: dict[str, list[float]] = defaultdict(list)
            for round_ in range(-1, rounds):  # the first one warms up
                messages = prompt(length, round_)
                size = sum(lab_tokens(m.content) for m in messages)
                whole = {m: await prefill(engine, messages) for m, engine in models.items()}
                for name, shrinker in shrinkers.items():
                    started = time.perf_counter()
                    shrunk = await shrinker.shrink(Request(messages))
                    seconds = time.perf_counter() - started
                    shorter = {m: await prefill(engine, shrunk.after) for m, engine in models.items()}
                    if round_ < 0:
                        continue
                    took[name].append(1000 * seconds / size)
                    stayed[name].append(1 - shrunk.saved(lab_tokens) / size)
                    for m in models:
                        saved[name, m].append((whole[m] - shorter[m]) / size * 1000)
            for name in shrinkers:
                each = statistics.median(took[name])
                ratios = []
                for m in models:
                    gain = statistics.median(saved[name, m])
                    ratios.append(f"{each / gain:.1f}" if gain > 0 else "nothing saved")
                cells = [str(length), name, f"{statistics.mean(stayed[name]):.0%}", f"{1000 * each:.1f}", *ratios]
                print(f"| {' | '.join(cells)} |", flush=True)
    finally:
        for engine in (reader, *models.values()):
            await engine.aclose()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[300, 1200])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rate", type=float, default=0.5)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.tokens, arguments.rounds, arguments.rate))


if __name__ == "__main__":
    main()
