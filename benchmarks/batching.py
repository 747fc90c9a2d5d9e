"""What batching gains and costs: throughput by concurrency, coalescing windows, the batcher, pools and the step loop.

    python -m benchmarks.batching [--rounds 6] [--only company,windows,embedder,overhead,pools,simulator] [--peer FOLDER]

*company*: throughput by the number of answers at once on the live engine, beside the step loop's prediction from five
numbers that were measured separately, and alpha of throughput ≈ B^alpha with its interval. *windows*: chat requests held for
0 to 100 ms, closed loop, short and longer answers; ratios to no window in the same round. *embedder*: the same waits in the
dynamic batcher, with callers that never fill a batch; and the batcher `batched` (mixedbread) if it can be imported, from
FOLDER if given: `pip install --target FOLDER --no-deps batched==0.1.5`. *overhead*: microseconds that a batcher adds to a
call of a function that does nothing. *pools*: microseconds that each lever that holds requests adds to a request, on an
engine that answers at once; and the TTFT of chats beside a flood of bulk requests on a live engine of eight seats, first
come first served, with priority, and with a limit. *simulator*: requests per second of `run_schedule`, by policy.

Every second round runs its settings in reverse order, so that a drifting machine affects all settings alike.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import numpy as np

from labkit.batching import (
    Batcher,
    CoalescingWindow,
    Gate,
    Job,
    Limits,
    OffPeak,
    Pool,
    Pooled,
    chunked_prefill,
    continuous,
    dynamic,
    embed_batcher,
    fit_exponent,
    run_schedule,
    static,
)
from labkit.embeddings import embedder
from labkit.engines import Engine, connect
from labkit.experiments import concurrency, prefill
from labkit.lab import traffic
from labkit.load import ExactLengths, closed_loop, open_loop, poisson
from labkit.request import Done, Event, Handler, Message, Request, Timing, Usage, clock, complete

WAITS_MS = (0, 5, 20, 50, 100)
Submit = Callable[[Any], Awaitable[Any]]


def turns(settings: Sequence[Any], rounds: int) -> Iterable[tuple[int, Any]]:
    """(round, setting) for all rounds; every second round runs the settings in reverse order."""
    for number in range(rounds):
        for setting in settings if number % 2 == 0 else reversed(settings):
            yield number, setting


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median and the range of `values`, as text."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


async def company(live: Engine, make: ExactLengths, rounds: int) -> None:
    """Print the throughput by the number of answers at once, the prediction beside it, and alpha."""
    people = (1, 2, 4, 8, 16, 32)
    rows = [await concurrency(live, make, people=n) for _, n in turns(people, rounds)]
    speeds = {n: [r["output_tokens_per_s"] for r in rows if r["people"] == n] for n in people}
    tpot = {n: statistics.median(r["tpot_s"] for r in rows if r["people"] == n) for n in (1, 8, 32)}
    first = [(n, (await prefill(live, make, prompt_tokens=n))["ttft_s"]) for _, n in turns((64, 600, 1200), rounds)]
    ttft = {n: statistics.median(t for m, t in first if m == n) for n in (64, 600, 1200)}
    volleys = []
    for _ in range(rounds):
        requests = [make(64, 1) for _ in range(16)]
        volleys.append((await closed_loop(live, requests, 16)).seconds)
    answer, step = np.polyfit(list(tpot), list(tpot.values()), 1, w=[1 / t for t in tpot.values()])
    token = max(0.0, float(np.polyfit(list(ttft), list(ttft.values()), 1)[0]))
    way = max(0.0, ttft[64] - step - 64 * token)
    let_in = max(0.0, (statistics.median(volleys) - ttft[64]) / 15 - 64 * token)
    print(
        f"\nmilliseconds: a step {1000 * step:.3f}, an answer {1000 * answer:.4f}, a prompt token {1000 * token:.4f}, "
        f"the way {1000 * way:.2f}, letting in {1000 * let_in:.2f}"
    )
    print("| answers at once | tokens/s | range | predicted | error |\n|--:|--:|--:|--:|--:|")
    for n, measured in speeds.items():
        jobs = [Job(way + let_in * (i + 1), 64, 48) for i in range(n)]
        plan = run_schedule(jobs, chunked_prefill, Limits(128, 2048), lambda p, d: float(step + token * p + answer * d))
        said, seen = n * 48 / plan.finish, statistics.median(measured)
        print(f"| {n} | {seen:.0f} | {min(measured):.0f}–{max(measured):.0f} | {said:.0f} | {said / seen - 1:+.0%} |")
    for name, sizes in (("1–32", people), ("1–4", people[:3]), ("8–32", people[3:])):
        law = fit_exponent({n: speeds[n] for n in sizes})
        print(f"alpha over {name}: {law.alpha:.2f} ({law.low:.2f} to {law.high:.2f}), worst miss {law.misfit:.0%}")


async def windows(live: Engine, make: ExactLengths, rounds: int) -> None:
    """Print the throughput and the p95 E2E of chat requests that a window holds for 0 to 100 ms."""
    print(
        "\n| answers of | clients | held (ms) | requests/s | × no window (range) | p95 E2E (ms) |\n|--:|--:|--:|--:|--:|--:|"
    )
    for output, clients in ((16, 16), (64, 16), (64, 4)):
        speed: dict[int, list[float]] = defaultdict(list)
        tail: dict[int, list[float]] = defaultdict(list)
        for _, ms in turns(WAITS_MS, rounds):
            requests = [make(64, output) for _ in range(clients * 4)]
            run = await closed_loop(CoalescingWindow(ms / 1000)(live), requests, clients)
            speed[ms].append(len(run.samples) / run.seconds)
            tail[ms].append(float(np.percentile([s.e2e for s in run.samples if s.e2e is not None], 95)))
        for ms in WAITS_MS:
            ratios = [a / b for a, b in zip(speed[ms], speed[0], strict=True)]
            print(
                f"| {output} tokens | {clients} | {ms} | {statistics.median(speed[ms]):.0f} | {spread(ratios)} "
                f"| {1000 * statistics.median(tail[ms]):.0f} |"
            )


async def callers(submit: Submit, n: int, items: Iterable[Any]) -> tuple[float, float]:
    """`n` callers that ask again as soon as they are answered: items per second, and the p95 of their waits in seconds."""
    waits: list[float] = []
    left = iter(items)

    async def one() -> None:
        for item in left:
            began = time.perf_counter()
            await submit(item)
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(n)))
    return len(waits) / (time.perf_counter() - began), float(np.percentile(waits, 95))


def peer_of(run: Callable[[list[Any]], list[Any]], size: int, wait_ms: float) -> Submit | None:
    """`run` behind the batcher `batched`; None when that cannot be imported."""
    try:
        from batched.aio import dynamically
    except ImportError as error:
        print(f"(batched is not run: {error})")
        return None
    made: Submit = dynamically(run, batch_size=size, timeout_ms=wait_ms, small_batch_threshold=0)
    return made


async def embedding(rounds: int) -> None:
    """Print texts per second for texts that come one at a time: one by one, in our batcher at several waits, in the peer."""
    encoder = embedder()
    texts = iter(dict.fromkeys(q.text for q in traffic("test", 60_000, 0, meanings_total=20_000)))
    encoder.encode(list(islice(texts, 32)))
    speed: dict[str, list[float]] = defaultdict(list)
    tail: dict[str, list[float]] = defaultdict(list)
    turn = asyncio.Lock()

    async def alone(text: str) -> Any:
        async with turn:
            return await asyncio.to_thread(encoder.encode, [text])

    peer = peer_of(lambda batch: list(encoder.encode(batch)), 32, 5.0)
    names = ["one by one", *(f"batcher, {ms} ms" for ms in WAITS_MS), *(["batched, 5 ms"] if peer else [])]
    for _, name in turns(names, rounds):
        some = list(islice(texts, 48 if name == "one by one" else 120))
        if name == "one by one":
            found = await callers(alone, 24, some)
        elif peer and name.startswith("batched"):
            found = await callers(peer, 24, some)
        else:
            async with embed_batcher(encoder.encode, max_size=32, max_wait_s=int(name.split()[1]) / 1000) as batcher:
                found = await callers(batcher.submit, 24, some)
        speed[name].append(found[0])
        tail[name].append(found[1])
    print("\n24 callers, batches of up to 32\n| how | texts/s | × one by one (range) | p95 (ms) |\n|---|--:|--:|--:|")
    for name in names:
        ratios = [a / b for a, b in zip(speed[name], speed["one by one"], strict=True)]
        tail_ms = 1000 * statistics.median(tail[name])
        print(f"| {name} | {statistics.median(speed[name]):.0f} | {spread(ratios)} | {tail_ms:.0f} |")


async def overhead(rounds: int) -> None:
    """Print the microseconds that a batcher adds to a call of a function that does nothing."""

    async def nothing(items: Sequence[int]) -> Sequence[int]:
        return items

    peer = peer_of(lambda batch: batch, 32, 0.0)
    found: dict[str, list[float]] = defaultdict(list)
    for _, n in turns((1, 32, 256), rounds):
        async with Batcher(nothing, max_size=32, max_wait_s=0.0) as batcher:
            found[f"labkit, {n} callers"].append(1e6 / (await callers(batcher.submit, n, range(6_000)))[0])
        if peer:
            found[f"batched, {n} callers"].append(1e6 / (await callers(peer, n, range(2_000)))[0])
    print("\n| batcher | µs per call |\n|---|--:|")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.0f} |")


async def at_once(_: Request) -> AsyncGenerator[Event, None]:
    """An engine that takes no time."""
    now = clock.now()
    yield Done(Usage(1, 1), Timing(now, now, now, now))


async def levers(rounds: int) -> None:
    """Print the microseconds that each lever that holds requests adds to a request, by the number of callers."""
    gate = Gate(8, Pool("chat"), Pool("bulk", priority=10))
    due = clock.now() + 1e6
    question = (Message("user", "q"),)
    chat, bulk = Request(question, feature="chat"), Request(question, feature="bulk", deadline=due)
    night = OffPeak(level=8, seats=8, work_s=lambda _: 1.0)(at_once)
    handlers: dict[str, tuple[Handler, Request]] = {
        "no lever": (at_once, chat),
        "Pooled": (Pooled(gate)(at_once), chat),
        "OffPeak, not held": (night, chat),
        "OffPeak, held": (night, bulk),
        "CoalescingWindow(0)": (CoalescingWindow(0)(at_once), chat),
    }
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, (name, n) in turns([(name, n) for name in handlers for n in (1, 32, 256)], rounds):
        handler, request = handlers[name]
        ask = functools.partial(complete, handler)
        found[name, n].append(1e6 / (await callers(ask, n, [request] * 3_000))[0])
    print("\n| µs per request | 1 caller | 32 | 256 |\n|---|--:|--:|--:|")
    for name in handlers:
        print(f"| {name} | " + " | ".join(spread(found[name, n], 0) for n in (1, 32, 256)) + " |")


async def priorities(rounds: int) -> None:
    """Print the TTFT of chats beside a flood on a live engine of eight seats, under both of vLLM's scheduling policies."""
    regimes = {
        "chats alone": (Pool("chat"),),
        "one priority": (Pool("chat"), Pool("bulk")),
        "chats first": (Pool("chat"), Pool("bulk", priority=10)),
        "bulk, 3 at a time": (Pool("chat"), Pool("bulk", at_most=3)),
    }
    print("\n| vLLM's policy | pools | p95 TTFT of chats (ms) | bulk/s |\n|---|---|--:|--:|")
    for policy in ("fcfs", "priority"):
        async with await connect(model="small", progress=lambda _: None, max_num_seqs=8, scheduling_policy=policy) as live:
            make = ExactLengths(str(live.tokenizer_path))
            stock = [replace(make(600, 64), feature="bulk") for _ in range(60)]
            felt: dict[str, list[float]] = defaultdict(list)
            rates: dict[str, list[float]] = defaultdict(list)
            for number, name in turns(list(regimes), rounds):
                chats = [(at, replace(make(64, 12), feature="chat")) for at in islice(poisson(15.0, number), 40)]
                seconds, ended, ttfts = await beside(live, regimes[name], stock, chats, f"{number} {name}")
                felt[name].append(1000 * float(np.percentile(ttfts, 95)))
                rates[name].append(ended / seconds)
        for name in regimes:
            print(f"| {policy} | {name} | {spread(felt[name], 0)} | {spread(rates[name], 1)} |")


async def beside(
    live: Engine, pools: Sequence[Pool], stock: Sequence[Request], chats: Sequence[tuple[float, Request]], mark: str
) -> tuple[float, int, list[float]]:
    """Seconds of the run, bulk requests that ended in it, and the TTFTs of the chats in seconds.

    24 requests of `stock` are under way all the time, unless `pools` has only the chats' pool.
    """
    handler, over, begin = Pooled(Gate(96, *pools))(live), False, clock.now()

    def flood() -> Iterable[Request]:
        for n, old in enumerate(cycle(stock if len(pools) > 1 else ())):
            if over:
                return
            yield replace(old, extra={**old.extra, "cache_salt": f"{mark} {begin} {n}"})

    job = asyncio.create_task(closed_loop(handler, flood(), 24))
    await asyncio.sleep(0.3)
    run = await open_loop(handler, chats)
    over, end = True, clock.now()
    ended = sum(s.timing is not None and (s.timing.done or end) < end for s in (await job).samples)
    return end - begin, ended, [s.ttft_from_due for s in run.samples if s.ttft_from_due is not None]


def simulator(rounds: int) -> None:
    """Print how many requests per second the step loop simulates."""
    rng = np.random.default_rng(0)
    jobs = [
        Job(at, int(rng.integers(20, 400)), 1 + min(200, int(rng.exponential(40)))) for at in islice(poisson(40.0, 0), 2_000)
    ]
    print("\n| policy | requests/s | steps |\n|---|--:|--:|")
    for name, policy in (
        ("static", static),
        ("dynamic, 50 ms", dynamic(0.05)),
        ("continuous", continuous),
        ("chunked prefill", chunked_prefill),
    ):
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            plan = run_schedule(jobs, policy, Limits(16, 512), lambda p, d: 0.002 + 0.00001 * p + 0.0001 * d)
            seconds.append(time.perf_counter() - began)
        print(f"| {name} | {len(jobs) / statistics.median(seconds):,.0f} | {len(plan.steps)} |")


async def measure(parts: Sequence[str], rounds: int) -> None:
    """Run the parts that are asked for. "company" and "windows" share one engine."""
    if {"company", "windows"} & set(parts):
        async with await connect(model="small", progress=print) as live:
            print(live.provenance.caption())
            make = ExactLengths(str(live.tokenizer_path))
            await concurrency(live, make, people=32)  # warm-up
            if "company" in parts:
                await company(live, make, rounds)
            if "windows" in parts:
                await windows(live, make, rounds)
    if "embedder" in parts:
        await embedding(rounds)
    if "overhead" in parts:
        await overhead(rounds)
    if "pools" in parts:
        await levers(rounds)
        await priorities(rounds)
    if "simulator" in parts:
        simulator(rounds)


def main() -> None:
    """Print the tables."""
    everything = "company,windows,embedder,overhead,pools,simulator"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", default=everything)
    parser.add_argument("--peer", help="a folder with the peer in it")
    options = parser.parse_args()
    if options.peer:
        sys.path.append(options.peer)
    asyncio.run(measure(options.only.split(","), options.rounds))


if __name__ == "__main__":
    main()
