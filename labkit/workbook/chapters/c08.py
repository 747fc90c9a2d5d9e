"""Chapter 08: what a session's memory costs, and what happens when it runs out."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any

from labkit.caches import PrefixCache
from labkit.engines import Engine
from labkit.engines.modelled import Block, Evict
from labkit.kvcache import Allocator, computed_twice
from labkit.lab import Example, grade
from labkit.latency import percentile
from labkit.request import Completion, InvalidValue, clock
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b08
from labkit.workbook.chapters.q08 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

Config = Mapping[str, Any]


CONFIGS: dict[str, Config | str] = {  # the fields that matter, from each model's own config.json, or a shape of the lab's
    "Llama 2 7B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "Llama 3.1 8B": "llama-3.1-8b",
    "Mistral 7B v0.1": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
    },
    "Gemma 2B": {
        "model_type": "gemma",
        "hidden_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 16384,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
    },
    "DeepSeek V2 Lite": {
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "vocab_size": 102400,
        "max_position_embeddings": 163840,
    },
    "Llama 3.1 70B": "llama-3.1-70b",
}


async def gauges_during(engine: Engine, task: asyncio.Task[Any], every_s: float = 0.05) -> list[dict[str, float | None]]:
    """The gauges of a vLLM, some twenty times a second, while a task runs; `s` is the time since the first."""
    rows: list[dict[str, float | None]] = []
    begin, before = clock.now(), (await engine.metrics()).preemptions or 0
    while not task.done():
        now = await engine.metrics()
        rows.append(
            {
                "s": clock.now() - begin,
                "KV memory in use (%)": 100 * (now.kv_cache_usage or 0.0),
                "running": now.requests_running,
                "waiting": now.requests_waiting,
                "preemptions until now": (now.preemptions or 0) - before,
            }
        )
        await asyncio.wait({task}, timeout=every_s)
    return rows


def cost_of(name: str, found: Mapping[str, Any], outputs: int, num_blocks: int) -> dict[str, Any]:
    """What a load on the engine `name` cost, in numbers.

    `found` has its `answers`, its scheduler's `steps`, the `seconds` it took and its `preemptions`; `outputs` is the tokens
    that were asked for in all, and `num_blocks` the engine's blocks.
    """
    answers, steps = found["answers"], found["steps"]
    tokens = sum(new for step in steps for _, new, _ in step.tokens)
    return {
        "engine": name,
        "preemptions": found["preemptions"],
        "steps": len(steps),
        "tokens": tokens,
        "again": 100 * computed_twice(steps) / tokens,
        "per_s": outputs / found["seconds"],
        "tpot": percentile([answer.tpot for answer in answers], 95),
        "running": fmean(len(step.tokens) for step in steps),
        "in_use": fmean(1 - step.free_blocks / (num_blocks - 1) for step in steps),
        "ttft": percentile([answer.done.timing.ttft for answer in answers], 95),
        "e2e": percentile([answer.done.timing.e2e for answer in answers], 95),
    }


def differences(tasks: Sequence[Example], first: Sequence[Completion], now: Sequence[Completion]) -> dict[str, float]:
    """How the answers `now` differ from the `first` ones to the same tasks.

    `other`: in other words. `lost` and `won`: right before and wrong now, or the other way round. `moved`: by how much the
    log-probabilities of the `tokens` changed, in all, in those answers whose words are the same.
    """
    same = [(a, b) for a, b in zip(first, now, strict=True) if (a.reasoning, a.text) == (b.reasoning, b.text)]
    moved = [abs(x.logprob - y.logprob) for a, b in same for x, y in zip(a.logprobs, b.logprobs, strict=True)]
    was, right = ([grade(task, each.text) for task, each in zip(tasks, found, strict=True)] for found in (first, now))
    return {
        "answers": len(tasks),
        "right": sum(right),
        "other": len(tasks) - len(same),
        "lost": sum(a and not b for a, b in zip(was, right, strict=True)),
        "won": sum(b and not a for a, b in zip(was, right, strict=True)),
        "moved": sum(moved),
        "tokens": len(moved),
    }


Plans = Mapping[str, tuple[float, int, int]]


def plan_to_sign(plans: Plans, gpu_usd: float, answers: int, wrong_usd: float, at_most: Callable[[int, int], float]) -> str:
    """The plan that costs least a month, even if as many answers are lost as its sample does not rule out.

    Each plan is (GPUs, answers lost, answers asked); one that cannot change an answer was asked none. `at_most(lost, asked)`
    is the upper end of the interval of the share that is lost.
    """

    def at_worst(name: str) -> float:
        gpus, lost, asked = plans[name]
        share = at_most(lost, asked) if asked else 0.0
        return math.ceil(gpus) * gpu_usd + answers * share * wrong_usd

    return min(plans, key=at_worst)


Signs = Callable[[Plans, float, int, float, Callable[[int, int], float]], str]


def upper_end(lost: int, asked: int) -> float:
    """Wilson's upper end at 95 %, as the larger root of (p − lost / asked)² = z² p (1 − p) / asked."""
    share, z2 = lost / asked, 1.959963984540054**2 / asked
    a, b, c = 1 + z2, -(2 * share + z2), share * share
    return (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)


def _check_signs(answer: Signs, rng: random.Random) -> Iterator[Outcome]:
    sure = {"16 bits": (3.6, 0, 0)}
    for plans, gpu_usd, answers, wrong_usd, expected, why in (
        ({**sure, "8 bits": (2.1, 9, 900)}, 3_500.0, 0, 0.25, "8 bits", "Nobody asks anything: fewer GPUs cost less."),
        (
            {**sure, "8 bits": (2.1, 9, 900)},
            3_500.0,
            18_000_000,
            0.25,
            "16 bits",
            "1 % of 18 million answers at 0.25 USD is far more than a GPU.",
        ),
        (
            {**sure, "8 bits": (2.1, 0, 50)},
            3_500.0,
            1_000_000,
            0.25,
            "16 bits",
            "None of 50 was lost, but the interval goes up to 7 %: that may cost more than the GPU that is spared.",
        ),
        (
            {**sure, "8 bits": (2.1, 0, 50_000)},
            3_500.0,
            1_000_000,
            0.25,
            "8 bits",
            "None of 50,000 was lost: even at the interval's upper end that costs 19 USD.",
        ),
        (
            {"fetched": (3.9, 0, 0), "kept": (3.2, 0, 0)},
            3_500.0,
            10,
            0.25,
            "fetched",
            "Both rent 4 GPUs: the first of equals.",
        ),
        ({"a": (4.0, 0, 0), "b": (4.1, 0, 0)}, 3_500.0, 10, 0.25, "a", "4 GPUs are 4; 4.1 are 5."),
    ):
        yield agree(answer, plans, gpu_usd, answers, wrong_usd, upper_end, expected=expected, why=why)
    for _ in range(25):
        gpu_usd, wrong_usd = rng.uniform(500, 5_000), rng.uniform(0.05, 2)
        answers = rng.randrange(10**4, 10**6)
        plans, at_worst = {}, {}
        for name in rng.sample(("kept", "fetched", "computed", "in 8 bits", "in 4 bits"), rng.randrange(2, 6)):
            gpus, asked = rng.uniform(0.5, 12), rng.choice((0, rng.randrange(20, 3_000)))
            lost = rng.randrange(1 + asked // 50) if asked else 0
            plans[name] = (gpus, lost, asked)
            share = upper_end(lost, asked) if asked else 0.0
            at_worst[name] = -int(-gpus // 1) * gpu_usd + answers * share * wrong_usd
        least, second = sorted(at_worst.values())[:2]
        if second - least > 1e-6 * second:  # equals are asked above
            yield agree(
                answer,
                plans,
                gpu_usd,
                answers,
                wrong_usd,
                upper_end,
                expected=min(at_worst, key=lambda name: at_worst[name]),
            )


def blocks_and_slots(tokens: Sequence[int], shared: int, block: int) -> tuple[int, int]:
    """(blocks held, empty slots in them) of sessions that begin with the same `shared` tokens.

    `tokens` holds each session's length in tokens; `block` is the tokens of a block.
    """
    common = shared // block  # only full blocks are shared
    own = sum(-(-each // block) - common for each in tokens)
    blocks = common + own
    stored = common * block + sum(each - common * block for each in tokens)
    return blocks, blocks * block - stored


def _allocated(tokens: Sequence[int], shared: int, block: int) -> tuple[int, int]:
    """The same as `blocks_and_slots`, counted in the lab's allocator."""
    serial = count(1)
    beginning = [next(serial) for _ in range(shared)]
    allocator = Allocator(2 + sum(-(-each // block) for each in tokens), block)
    for number, each in enumerate(tokens):
        assert allocator.allocate(f"session {number}", beginning + [next(serial) for _ in range(each - shared)])
    seen = allocator.snapshot()
    return sum(bool(one.holders) for one in seen.blocks), seen.empty_slots


def _check_blocks(answer: Callable[[Sequence[int], int, int], tuple[int, int]], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, [40], 0, 32, expected=(2, 24), why="40 tokens need 2 blocks of 32, and 24 slots stay empty.")
    yield agree(answer, [64, 64], 0, 32, expected=(4, 0), why="Full blocks have no empty slot.")
    yield agree(
        answer, [80, 80], 64, 32, expected=(4, 32), why="The 2 blocks of the common beginning are there once, for both."
    )
    yield agree(
        answer, [80, 80], 50, 32, expected=(5, 32), why="Of 50 common tokens, one full block can be shared; 18 are in both."
    )
    for _ in range(20):
        block = rng.choice((16, 32, 64, 128))
        shared = rng.choice((0, rng.randrange(0, 4 * block)))
        tokens = [shared + rng.randrange(1, 6 * block) for _ in range(rng.randrange(1, 12))]
        yield agree(answer, tokens, shared, block, expected=_allocated(tokens, shared, block))


def sessions_that_fit(
    memory: int,
    weights: int,
    token: int,
    context: int,
    block: int,
    step_s: Callable[[int], float],
    tokens_per_s: float,
) -> tuple[int, str]:
    """How many sessions of `context` tokens a machine holds and serves at `tokens_per_s` each, and what limits it.

    The limit is "memory" or "speed". `memory`, `weights` and `token` (one token's KV cache) are in bytes, `block` in tokens;
    `step_s` gives the seconds of a decode step of n sessions.
    """
    blocks = (memory - weights) // (token * block) - 1
    by_memory = max(0, blocks // -(-context // block))
    by_speed = 0
    while by_speed < by_memory and step_s(by_speed + 1) * tokens_per_s <= 1:
        by_speed += 1
    return (by_memory, "memory") if by_speed >= by_memory else (by_speed, "speed")


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of a step in which n sessions write: `fixed` + `each` · n. Unlike a lambda, a check can show its numbers."""

    fixed: float
    each: float

    def __call__(self, n: int) -> float:
        """Seconds of a step in which `n` sessions write."""
        return self.fixed + self.each * n


Fits = Callable[[int, int, int, int, int, Callable[[int], float], float], tuple[int, str]]


def _check_fits(answer: Fits, rng: random.Random) -> Iterator[Outcome]:
    instant = StepSeconds(0.0, 0.0)
    for memory, context, step_s, expected, why in (
        (
            40_000,
            100,
            instant,
            (29, "memory"),
            "30,000 B are 300 blocks of 100 B; one is kept back, and a session takes 10: 29 fit, not 30.",
        ),
        (40_100, 100, instant, (30, "memory"), "301 blocks, one is kept back: 30 fit."),
        (41_000, 101, instant, (28, "memory"), "101 tokens need 11 blocks of 10: the last one is paid for whole."),
        (
            41_000,
            100,
            StepSeconds(0.0, 0.01),
            (5, "speed"),
            "A step of n sessions takes n × 10 ms, and 20 tokens per second leave it 50 ms.",
        ),
        (9_000, 100, instant, (0, "memory"), "The weights alone do not fit: 0 sessions."),
        (
            41_000,
            100,
            StepSeconds(0.1, 0.0),
            (0, "speed"),
            "Any step takes 100 ms, and 20 tokens per second leave it 50 ms: there is room for 30, and none is fast enough.",
        ),
    ):
        yield agree(answer, memory, 10_000, 10, context, 10, step_s, 20.0, expected=expected, why=why)
    for _ in range(15):
        block, token = rng.choice((16, 32)), rng.randrange(1_000, 9_000)
        num_blocks = rng.randrange(20, 160)
        weights = rng.randrange(10**6, 10**9)
        memory = weights + num_blocks * token * block + rng.randrange(token * block)
        context = rng.randrange(1, 12 * block)
        allocator, sessions = Allocator(num_blocks, block), 0
        serial = count(1)
        while context <= (num_blocks - 1) * block and allocator.allocate(
            str(sessions), [next(serial) for _ in range(context)]
        ):
            sessions += 1
        per_step, per_session = rng.uniform(0.001, 0.02), rng.uniform(0.0001, 0.004)
        wish = 1 / (per_step + per_session * (rng.uniform(0.3, 1.6) * sessions + 0.5))
        step_s = StepSeconds(per_step, per_session)
        fast = max([0, *(n for n in range(1, 2 * sessions + 2) if step_s(n) * wish <= 1)])
        found = call(answer, memory, weights, token, context, block, step_s, wish)
        expected = (sessions, "memory") if fast >= sessions else (fast, "speed")
        yield holds(
            "it is what the allocator has room for, and what the wish for speed leaves of it",
            found == expected,
            given=f"{memory - weights:,} B beside the weights, {token} B a token, blocks of {block}, {context} tokens a "
            f"session, a step of n takes {1000 * per_step:.1f} + {1000 * per_session:.2f}·n ms, {wish:.1f} tokens/s wished",
            expected=expected,
            actual=found,
        )


def keep_what_came_back(free: Sequence[Block], now: int) -> Block:
    """Evict the oldest free block that no prompt ever found, or the oldest of all when every block was found.

    But if nobody has held the oldest block for more than 40 prompts, evict that one.
    """
    if now - free[0].freed > 40:
        return free[0]
    return next((block for block in free if not block.hits), free[0])


def chat_traffic(rng: random.Random, requests: int, block: int, one_off: float = 0.5) -> list[list[int]]:
    """Prompts, as token ids, of ten chats with growing histories, mixed with documents that are sent only once.

    A chat that ends is replaced by a new one. `one_off` is the documents' share of the requests, `block` the tokens of a
    block.
    """
    serial = count(1)

    def fresh(n: int) -> list[int]:
        return [next(serial) for _ in range(n)]

    shops = [fresh(3 * block) for _ in range(3)]

    def opened() -> tuple[list[int], int]:
        return rng.choice(shops) + fresh(rng.randrange(block, 3 * block)), rng.randrange(4, 9)

    chats = [opened() for _ in range(10)]
    prompts = []
    for _ in range(requests):
        if rng.random() < one_off:
            prompts.append(fresh(rng.randrange(5 * block, 12 * block)))
            continue
        at = rng.randrange(len(chats))
        history, turns = chats[at]
        prompts.append(history)
        grown = history + fresh(rng.randrange(block // 2, 3 * block))
        chats[at] = (grown, turns - 1) if turns > 1 else opened()
    return prompts


def hit_share(prompts: Sequence[Sequence[int]], num_blocks: int, block: int, evict: Evict | None = None) -> float:
    """Share of the prompts' tokens that a prefix cache of `num_blocks` blocks serves. Without `evict`, it evicts by LRU."""
    cache = PrefixCache(num_blocks, block, evict)
    return sum(cache.serve(prompt) for prompt in prompts) / sum(map(len, prompts))


def _check_evict(answer: Evict, rng: random.Random) -> Iterator[Outcome]:
    calls = 0

    def watched(free: Sequence[Block], now: int) -> Block:
        nonlocal calls
        calls += 1
        chosen: object = answer(free, now)
        if chosen is ...:
            raise NotImplementedError
        return chosen  # type: ignore[return-value]  # the block manager says so if it is none

    for found in (0, 3):
        lone = Block(7)
        lone.hits = found
        chosen = call(answer, [lone], 1)
        yield holds(
            "of one free block it chooses that one",
            getattr(chosen, "id", None) == 7,
            given=f"one free block, found by {found} prompts",
            expected="that block",
            actual=repr(chosen),
        )
    own: list[float] = []
    lab: list[float] = []
    block = 16
    for _ in range(3):
        prompts = chat_traffic(rng, 500, block)
        for num_blocks in (60, 100):
            try:
                share, problem = hit_share(prompts, num_blocks, block, watched), ""
            except InvalidValue as error:
                share, problem = 0.0, str(error)
            yield holds(
                "it chooses one of the free blocks",
                not problem,
                expected="one of `free`",
                actual=problem,
                why="None is what a function returns while it is blank, or when its `return` is missing."
                if "None" in problem
                else "",
            )
            own.append(share)
            lab.append(hit_share(prompts, num_blocks, block))
    yield holds("it was asked", calls > 0, expected="a choice among full, free blocks")
    gain = sum(own) / sum(lab)
    yield holds(
        "the cache serves more than it does when the least recently used block goes first",
        gain >= 1.05,
        given=f"chats among one-off documents, caches of 60 and 100 blocks; LRU serves {100 * sum(lab) / len(lab):.1f} %",
        expected=f"at least {105 * sum(lab) / len(lab):.1f} % of the prompts' tokens served",
        actual=f"{100 * sum(own) / len(own):.1f} %",
    )
    # All earlier chats have ended: the favourites of the first day must not keep their blocks for ever. How long to be
    # patient is the learner's choice: over three such days twice the lab's patience serves as much as LRU, and patience
    # without end at most 0.86 of that.
    own, lab = [], []
    for _ in range(3):
        old, new = chat_traffic(rng, 300, block, one_off=0.0), chat_traffic(rng, 300, block)
        apart = [[-token for token in prompt] for prompt in new]
        for evict, shares in ((watched, own), (None, lab)):
            cache = PrefixCache(80, block, evict)
            for prompt in old:
                cache.serve(prompt)
            shares.append(sum(cache.serve(prompt) for prompt in apart) / sum(map(len, apart)))
    yield holds(
        "it lets go of what nobody asks for any more",
        sum(own) >= 0.95 * sum(lab),
        given="three second days whose chats share nothing with the first; LRU serves "
        f"{100 * sum(lab) / len(lab):.1f} % on them",
        expected=f"at least {95 * sum(lab) / len(lab):.1f} % of the prompts' tokens served",
        actual=f"{100 * sum(own) / len(own):.1f} %",
    )


def _never_found_first(free: Sequence[Block], _: int) -> Block:
    """Near miss: a block that was ever found stays for ever."""
    return next((block for block in free if not block.hits), free[0])


CHAPTER = Chapter(
    number="08",
    name="kv_cache_optimization",
    title="KV cache: what a session's memory costs, and what happens when it runs out",
    predictions=("08.session", "08.twice", "08.fp8"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("08.seven", "08.waste"),
    needs=("vllm",),
    exercises=(
        Exercise(
            id="08.1",
            title="Which plan do you sign?",
            minutes=7,
            difficulty=2,
            answer="plan_to_sign",
            check=_check_signs,
            reference=plan_to_sign,
            hints=(
                "What does a plan cost in the worst case that its sample does not rule out? Rent, and wrong answers.",
                "`at_most(lost, asked)` is the interval's upper end. A sample without a loss has one, too.",
                "GPUs are rented whole: `math.ceil`. A plan that cannot change an answer was asked none, and loses none.",
            ),
            wrong=(
                lambda plans, gpu_usd, answers, wrong_usd, at_most: min(plans, key=lambda name: plans[name][0]),
                lambda plans, gpu_usd, answers, wrong_usd, at_most: min(
                    plans,
                    key=lambda name: (
                        math.ceil(plans[name][0]) * gpu_usd
                        + answers * (plans[name][1] / plans[name][2] if plans[name][2] else 0.0) * wrong_usd
                    ),
                ),
                lambda plans, gpu_usd, answers, wrong_usd, at_most: min(
                    plans,
                    key=lambda name: (
                        plans[name][0] * gpu_usd
                        + answers * (at_most(*plans[name][1:]) if plans[name][2] else 0.0) * wrong_usd
                    ),
                ),
                lambda plans, gpu_usd, answers, wrong_usd, at_most: next(
                    (name for name, (_, _, asked) in plans.items() if not asked), next(iter(plans))
                ),
            ),
        ),
        Exercise(
            id="08.2",
            title="Blocks and empty slots of sessions that begin alike",
            minutes=8,
            difficulty=2,
            answer="blocks_and_slots",
            check=_check_blocks,
            reference=blocks_and_slots,
            hints=(
                "A session of t tokens takes ⌈t / block⌉ blocks: `-(-t // block)`.",
                "Only full blocks are shared: of `shared` tokens, `shared // block` blocks. They are held once, whoever has "
                "them; every session has its other blocks for itself.",
                "Empty slots are the blocks' room less the tokens stored in them; shared tokens are stored once.",
            ),
            wrong=(
                lambda tokens, shared, block: (
                    sum(-(-t // block) for t in tokens),
                    sum(-(-t // block) * block - t for t in tokens),
                ),
                lambda tokens, shared, block: (
                    -(-shared // block) + sum(-(-(t - shared) // block) for t in tokens),
                    sum(-(-(t - shared) // block) * block - (t - shared) for t in tokens) + -shared % block,
                ),
                lambda tokens, shared, block: (
                    blocks_and_slots(tokens, shared, block)[0],
                    blocks_and_slots(tokens, shared, block)[0] * block - sum(tokens),
                ),
            ),
        ),
        Exercise(
            id="08.3",
            title="Size a machine: how many sessions, and what binds?",
            minutes=12,
            difficulty=2,
            answer="sessions_that_fit",
            check=_check_fits,
            reference=sessions_that_fit,
            hints=(
                "Memory beside the weights, cut into blocks of `token * block` bytes; vLLM keeps one of them back.",
                "Each session takes whole blocks. The rest of the last one is lost to everybody.",
                "Speed: the largest n with `step_s(n) <= 1 / tokens_per_s`. You need not look beyond what memory holds.",
            ),
            wrong=(
                lambda memory, weights, token, context, block, step_s, tokens_per_s: (
                    (memory - weights) // (token * context),
                    "memory",
                ),
                lambda memory, weights, token, context, block, step_s, tokens_per_s: (
                    (memory - weights) // (token * block) // -(-context // block),
                    "memory",
                ),
                lambda memory, weights, token, context, block, step_s, tokens_per_s: sessions_that_fit(
                    memory, weights, token, context, block, lambda n: 0.0, tokens_per_s
                ),
                lambda memory, weights, token, context, block, step_s, tokens_per_s: sessions_that_fit(
                    memory, weights + token * block, token, context, block, step_s, tokens_per_s
                ),
            ),
            equivalent={
                "line 15: (memory - weights) // (token * block) -> (memory - weights) / (token * block)": "a part of a "
                "block is lost as well where the blocks are shared out among sessions and rounded down",
                "line 18: by_speed < by_memory -> by_speed <= by_memory": "one session more than memory holds is tried, and "
                "memory binds all the same",
            },
        ),
        Exercise(
            id="08.4",
            title="An eviction policy that knows a chat from a one-off",
            minutes=25,
            difficulty=3,
            answer="evict",
            check=_check_evict,
            reference=keep_what_came_back,
            hints=(
                "`free[0]` is LRU's choice. What tells a one-off document's blocks from a chat's is that nobody found them: "
                "their `hits` are 0.",
                "So give away the first block in `free` with no hits, if there is one. But chats end, and their blocks keep "
                "their hits: what becomes of those?",
                "`now - free[0].freed` says for how many prompts nobody has held the oldest block. Above some 40, let "
                "it go first.",
            ),
            wrong=(
                lambda free, now: free[0],
                _never_found_first,
                lambda free, now: min(free, key=lambda block: block.hits),
                lambda free, now: max(free, key=lambda block: block.depth),
                lambda free, now: free[-1],
                lambda free, now: Block(free[0].id),
            ),
            equivalent={
                **{
                    f"line 6: now - free[0].freed > 40 -> now - free[0].freed {other}": "how long to be patient is the "
                    "learner's choice: at these the cache still serves a twentieth more than LRU and hoards nothing"
                    for other in (">= 40", "> 41", "> 39", "> 80")
                },
                "line 8: free[0] -> free[-1]": "which one goes when every free block was found is the learner's choice; "
                "this one serves as much, and lets go of old ones by the rule above",
            },
            limit_s=60.0,
        ),
        b08.BUILD,
    ),
)
