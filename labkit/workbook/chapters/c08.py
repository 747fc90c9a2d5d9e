"""Chapter 08: what a session's memory costs, and what happens when it runs out."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from labkit.caches import PrefixCache
from labkit.engines.modelled import Block, Evict
from labkit.kvcache import Allocator
from labkit.request import InvalidValue
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b08
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

Config = Mapping[str, Any]


def token_bytes(config: Config, value_bytes: int) -> int:
    """Bytes that one token takes in the KV cache over all layers, from a transformers configuration.

    `value_bytes` is the size of one number of the cache, as 2 for BF16.
    """
    if config.get("kv_lora_rank"):  # MLA: one latent and one rotated key for all heads
        values = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    else:
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        values = 2 * (config.get("num_key_value_heads") or heads) * size
    return int(config["num_hidden_layers"] * values * value_bytes)


def _check_bytes(answer: Callable[[Config, int], int], rng: random.Random) -> Iterator[Outcome]:
    llama = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    yield agree(answer, llama, 2, expected=524_288, why="MHA, Llama 2 7B: 2 × 32 heads × 128 × 32 layers × 2 B.")
    yield agree(
        answer, {**llama, "num_key_value_heads": 8}, 2, expected=131_072, why="GQA, Llama 3.1 8B: only 8 heads keep a pair."
    )
    for _ in range(12):
        layers, size = rng.randrange(2, 90), rng.choice((64, 80, 96, 128, 256))
        heads = rng.choice((4, 8, 16, 32, 64))
        kept = rng.choice([n for n in (1, 2, 4, 8, 16, 32) if heads % n == 0])
        config: dict[str, Any] = {
            "hidden_size": heads * size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kept,
        }
        if rng.random() < 0.4:  # heads that are not hidden_size / heads wide
            config |= {"head_dim": size, "hidden_size": heads * size + 512 * heads}
        for value_bytes in (2, 1):
            yield agree(answer, config, value_bytes, expected=2 * kept * size * layers * value_bytes)
    for _ in range(6):
        layers, rank, rotated = rng.randrange(2, 70), rng.choice((256, 512)), rng.choice((32, 64))
        latent = {
            "hidden_size": 2048,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "kv_lora_rank": rank,
            "qk_rope_head_dim": rotated,
        }
        value_bytes = rng.choice((2, 1))
        yield agree(
            answer,
            latent,
            value_bytes,
            expected=(rank + rotated) * layers * value_bytes,
            why="MLA keeps one vector of kv_lora_rank + qk_rope_head_dim numbers: no pair, and no heads.",
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
    quizzes=("08.q1", "08.q2", "08.q3"),
    claims=("08.seven",),
    needs=("vllm",),
    exercises=(
        Exercise(
            id="08.1",
            title="Bytes per token, from a configuration",
            minutes=8,
            difficulty=1,
            answer="token_bytes",
            check=_check_bytes,
            reference=token_bytes,
            hints=(
                "Two vectors (key and value) per layer and KV head, each `head_dim` numbers long.",
                "`num_key_value_heads` may be missing: then every attention head keeps its own. `head_dim` may be missing: "
                "then it is `hidden_size // num_attention_heads`.",
                "A configuration with `kv_lora_rank` is MLA: per layer one vector of `kv_lora_rank + qk_rope_head_dim`.",
            ),
            wrong=(
                lambda config, value_bytes: 2 * config["num_hidden_layers"] * config["hidden_size"] * value_bytes,
                lambda config, value_bytes: (
                    2
                    * config["num_hidden_layers"]
                    * config.get("num_key_value_heads", config["num_attention_heads"])
                    * (config["hidden_size"] // config["num_attention_heads"])
                    * value_bytes
                ),
                lambda config, value_bytes: 2 * token_bytes(config, value_bytes) // value_bytes,
            ),
            equivalent={
                "line 10: config['hidden_size'] // heads -> config['hidden_size'] / heads": "without a head_dim, the heads "
                "divide the hidden size, and the result is made an int"
            },
        ),
        Exercise(
            id="08.2",
            title="Blocks and empty slots of sessions that begin alike",
            minutes=10,
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
