"""How long a routing decision takes, how much throughput the routing levers cost, and how much their frontier saves.

    python -m benchmarks.routing [--per-family 40] [--rounds 3] [--streams 64]

Both lab models run live on this machine. Three tables:

1. The time of one decision, for each signal and judge, beside the small model's time to first token when it is alone: a
   router that takes as long as the model it routes to saves nothing. "MiniLM" is the same classifier on sentence embeddings.
2. The throughput of the small engine with `--streams` streams under way: asked directly, and through `Route` and `Cascade`
   with thresholds that send everything to the small model, so that any loss is due to the levers. The ways take turns;
   figures are medians over the rounds.
3. The area under the frontier by calls (APGR) and the saving at 95 % of the large model's quality, with 95 % bootstrap
   intervals, and the paired difference from the nearest-neighbour look-up. Prices are those of gpt-5-nano and gpt-5-mini.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from labkit.cost import price_of, price_request
from labkit.embeddings import embedder
from labkit.engines import connect
from labkit.lab import Example, examples, families, grade
from labkit.request import Completion, Handler, Request, complete, stack
from labkit.routing import (
    Cascade,
    Classifier,
    HashedWords,
    Interval,
    Margin,
    Outcomes,
    Route,
    RoutingPolicy,
    Rule,
    Rules,
    SequenceLogprob,
    Way,
    apgr,
    bootstrap,
    calibrate,
    frontier,
    knn_scores,
)


def asked(split: Literal["dev", "test"], n: int, seed: int, *, apart_from: Sequence[Example] = ()) -> list[Example]:
    """`n` questions of each family from `split`, shuffled by `seed`, less those whose text is one of `apart_from`'s."""
    taken = {example.messages[-1].content for example in apart_from}
    drawn = (example for family in families() for example in examples(split, family, n, seed))
    found = [example for example in drawn if example.messages[-1].content not in taken]
    random.Random(seed).shuffle(found)
    return found


def request(example: Example, model: str = "", logprobs: int | None = None) -> Request:
    """The request that asks `example`."""
    return Request(example.messages, model, example.max_tokens, logprobs=logprobs)


async def answers(handler: Handler, requests: Sequence[Request], streams: int) -> list[Completion]:
    """All answers, with at most `streams` under way."""
    gate = asyncio.Semaphore(streams)

    async def one(each: Request) -> Completion:
        async with gate:
            return await complete(handler, each)

    return await asyncio.gather(*(one(each) for each in requests))


def milliseconds(decide: Callable[[int], object], n: int, rounds: int) -> float:
    """Milliseconds of one decision: the median over rounds of the mean over `decide(0)` … `decide(n - 1)`."""
    decide(0)
    means = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for i in range(n):
            decide(i)
        means.append(1000 * (time.perf_counter() - begun) / n)
    return statistics.median(means)


def told(found: Interval) -> str:
    """An interval in percent."""
    return f"{100 * found.estimate:6.1f} ({100 * found.low:5.1f} to {100 * found.high:5.1f})"


def saving(way: Way) -> Callable[[Outcomes], float]:
    """Share of the always-large bill saved at 95 % of the large model's quality."""

    def statistic(outcomes: Outcomes) -> float:
        table = frontier(outcomes, way)
        reached = table[table["quality"] >= 0.95 * outcomes.right_large.mean()]
        return 1 - float(reached["cost"].min()) / float(outcomes.cost_large.mean())

    return statistic


def paired(one: Outcomes, other: Outcomes, seed: int = 0, resamples: int = 500) -> Interval:
    """The APGR of `one` minus that of `other`, with a 95 % interval from resampling the same requests of both."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(len(one), size=len(one)) for _ in range(resamples)]
    low, high = np.quantile([apgr(one.take(r)) - apgr(other.take(r)) for r in rows], [0.025, 0.975])
    return Interval(apgr(one) - apgr(other), float(low), float(high), 0.95)


async def main(per_family: int, rounds: int, streams: int) -> None:
    """Measure and print the three tables."""
    small, large = await connect("vllm", "small"), await connect("vllm", "large")
    try:
        train, test = asked("dev", per_family, 1), asked("test", per_family, 3)
        known = asked("dev", per_family, 2, apart_from=train)  # two seeds draw some of the same short questions
        train_small = await answers(small, [request(e) for e in train], 16)
        known_small = await answers(small, [request(e, logprobs=0) for e in known], 16)
        test_small = await answers(small, [request(e, logprobs=2) for e in test], 16)
        test_large = await answers(large, [request(e) for e in test], 16)
        alone = [(await complete(small, request(e))).done.timing.ttft or 0.0 for e in test[:100]]
        first_token = 1000 * statistics.median(alone)

        texts = [e.messages[-1].content for e in train]
        trained_on = [grade(e, a.text) for e, a in zip(train, train_small, strict=True)]
        words, minilm = HashedWords(), embedder()
        hashed, meaning = Classifier.train(texts, trained_on, words), Classifier.train(texts, trained_on, minilm)
        vectors = words.encode(texts)
        by_rule = Rules((Rule(0.1, words=frozenset({"at", "days ago"})), Rule(0.3, min_chars=400)))
        requests = [request(e) for e in test]
        whole, gap = SequenceLogprob("total"), Margin()
        decisions: dict[str, Callable[[int], object]] = {
            "rules": lambda i: by_rule(requests[i]),
            "classifier, hashed words": lambda i: hashed(requests[i]),
            "classifier, MiniLM": lambda i: meaning(requests[i]),
            "20 nearest, hashed words": lambda i: knn_scores(
                vectors, trained_on, words.encode([requests[i].messages[-1].content])
            ),
            "judge: whole answer": lambda i: whole(requests[i], test_small[i]),
            "judge: margin": lambda i: gap(requests[i], test_small[i]),
        }
        print(
            f"\n{small.provenance.caption()}\n\n1. One decision; the small model's first token, alone: {first_token:.1f} ms"
        )
        for name, decide in decisions.items():
            ms = milliseconds(decide, min(100, len(test)), rounds)
            print(f"   {name:26} {ms:8.3f} ms   {100 * ms / first_token:6.1f} % of the first token")

        policy = RoutingPolicy("v1", (small.model, large.model), (0.0,))
        models = {small.model: small, large.model: large}
        ways: dict[str, Handler] = {
            "direct": small,
            "route, hashed words": stack(Route(policy, hashed), engine=models),
            "cascade, whole answer": stack(Cascade(policy, whole), engine=models),
        }
        load = [request(e, small.model, logprobs=0) for e in test] * max(1, 2 * streams // len(test))
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                begun = time.perf_counter()
                await answers(way, load, streams)
                rates[name].append(len(load) / (time.perf_counter() - begun))
        direct = statistics.median(rates["direct"])
        print(f"\n2. {streams} streams, {len(load)} requests, all of them stay small")
        for name, found in rates.items():
            rate = statistics.median(found)
            lost = f"{100 * (rate / direct - 1):+6.1f} %   (rounds {min(found):.1f} to {max(found):.1f})"
            print(f"   {name:26} {rate:8.1f} requests/s   {lost}")

        prices = price_of("gpt-5-nano"), price_of("gpt-5-mini")
        columns = {
            "right_small": [grade(e, a.text) for e, a in zip(test, test_small, strict=True)],
            "right_large": [grade(e, a.text) for e, a in zip(test, test_large, strict=True)],
            "cost_small": [float(price_request(a.done.usage, prices[0]).total) for a in test_small],
            "cost_large": [float(price_request(a.done.usage, prices[1]).total) for a in test_large],
        }
        known_raw = [whole(request(e), a).value for e, a in zip(known, known_small, strict=True)]
        fitted = calibrate(known_raw, [grade(e, a.text) for e, a in zip(known, known_small, strict=True)])
        asked_text = [e.messages[-1].content for e in test]
        scores: dict[str, tuple[Way, object]] = {
            "20 nearest, hashed words": ("before", knn_scores(vectors, trained_on, words.encode(asked_text))),
            "classifier, hashed words": ("before", hashed.predict(asked_text)),
            "classifier, MiniLM": ("before", meaning.predict(asked_text)),
            "cascade, whole answer": (
                "cascade",
                fitted.all([whole(r, a).value for r, a in zip(requests, test_small, strict=True)]),
            ),
        }
        tables = {name: Outcomes(score, **columns) for name, (_, score) in scores.items()}
        nearest = tables["20 nearest, hashed words"]
        print(f"\n3. {len(test)} questions; percent, with 95 % intervals; a coin has an APGR of 50")
        print(f"   {'':26} {'APGR':24} {'less the look-up':24} saved at 95 % quality")
        for name, (way, _) in scores.items():
            area = bootstrap(tables[name], apgr, resamples=500)
            saved = bootstrap(tables[name], saving(way), resamples=500)
            print(f"   {name:26} {told(area)}  {told(paired(tables[name], nearest))}  {told(saved)}")
    finally:
        await small.aclose()
        await large.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-family", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=64)
    given = parser.parse_args()
    asyncio.run(main(given.per_family, given.rounds, given.streams))
