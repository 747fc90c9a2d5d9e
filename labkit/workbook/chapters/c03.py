"""Chapter 03: what a stable prefix is worth."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations

from labkit.caches import block_hits
from labkit.request import Usage
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b03
from labkit.workbook.chapters.q03 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, equals, holds


def cached_tokens(shared: int, prompt: int, block: int) -> int:
    """Tokens of a prompt that a prefix cache of full blocks serves, when the first `shared` tokens have been seen before."""
    return min(shared, prompt - 1) // block * block


def _check_cached(answer: Callable[[int, int, int], int], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, 100, 500, 128, expected=0, why="Less than one block is shared: nothing can be served.")
    yield agree(
        answer, 256, 256, 128, expected=128, why="The whole prompt was seen, but its last token must be computed again."
    )
    yield agree(answer, 257, 257, 128, expected=256)
    yield agree(answer, 256, 500, 128, expected=256, why="Two whole blocks were read before; what is new comes behind them.")
    for _ in range(25):
        block = rng.choice((16, 32, 128))
        prompt = rng.randrange(1, 2000)
        shared = prompt if rng.random() < 0.3 else rng.randrange(0, prompt + 1)
        yield agree(answer, shared, prompt, block, expected=cached_tokens(shared, prompt, block))


def input_saving(usages: Sequence[Usage], plain: float, cached: float, write: float) -> float:
    """Share of the input bill that caching saved, against paying `plain` for every input token; below 0 for a loss."""
    paid = sum(u.fresh_input_tokens * plain + u.cached_tokens * cached + u.cache_write_tokens * write for u in usages)
    return 1 - paid / (plain * sum(u.input_tokens for u in usages))


def _check_saving(answer: Callable[..., float], rng: random.Random) -> Iterator[Outcome]:
    yield agree(
        answer,
        [Usage(1000, 0, 0, 1000), Usage(1000, 0, 1000)],
        1.0,
        0.1,
        1.25,
        expected=1 - 1.35 / 2,
        why="One token written at 1.25 and one read at 0.1, instead of two at 1.",
    )
    yield agree(
        answer, [Usage(1000, 50, 0, 1000)], 1.0, 0.1, 1.25, expected=-0.25, why="A write that nobody reads is a loss."
    )
    for _ in range(20):
        usages = []
        for _ in range(rng.randrange(1, 12)):
            total = rng.randrange(100, 5000)
            cached = rng.randrange(0, total)
            usages.append(Usage(total, rng.randrange(0, 300), cached, rng.randrange(0, total - cached + 1)))
        plain = rng.uniform(0.1, 5)
        prices = plain, plain * rng.uniform(0.05, 0.6), plain * rng.uniform(1, 2)
        yield agree(answer, usages, *prices, expected=input_saving(usages, *prices))


Parts = Mapping[str, Sequence[str]]


def stable_first(parts: Parts) -> list[str]:
    """Names of a template's parts, the least changing first. `parts` maps each name to the part's text in every request."""
    return sorted(parts, key=lambda name: len(set(parts[name])))


def _shared_by_all(parts: Parts, order: Sequence[str]) -> int:
    """How many characters all requests have in common at their beginning, when the parts stand in this order."""
    total = 0
    for name in order:
        texts = parts[name]
        if len(set(texts)) > 1:
            return total
        total += len(texts[0])
    return total


def _shared_by_pairs(parts: Parts, order: Sequence[str]) -> int:
    """How many parts two requests have in common at their beginning, summed over all pairs of requests."""
    n = len(next(iter(parts.values())))
    total = 0
    for i in range(n):
        for j in range(i):
            for name in order:
                if parts[name][i] != parts[name][j]:
                    break
                total += 1
    return total


_NAMES = ("instructions", "tools", "policy", "question", "persona", "examples", "date", "customer")


def _check_order(answer: Callable[[Parts], list[str]], rng: random.Random) -> Iterator[Outcome]:
    for _ in range(12):
        n = rng.randrange(6, 12)
        tenants = [rng.choice("abc") for _ in range(n)]
        kinds: dict[str, list[str]] = {
            "instructions": ["Answer briefly. " * rng.randrange(3, 30)] * n,
            "tools": ["{search} {refund}" * rng.randrange(1, 9)] * n,
            "policy": [f"policy of {tenant}" for tenant in tenants],
            "question": [f"question {i}" for i in range(n)],
        }
        # Names that say nothing, so that only the texts tell what stands where.
        names = rng.sample(_NAMES, len(kinds))
        parts = dict(zip(names, rng.sample(list(kinds.values()), len(kinds)), strict=True))
        given = f"{n} requests of {len(set(tenants))} tenants with parts in the order {names}"
        got = call(answer, parts)
        yield holds("names come back in a list", isinstance(got, (list, tuple)), given=given, actual=repr(got))
        if not isinstance(got, (list, tuple)):
            return
        yield equals(f"every part stands in it once ({given})", sorted(got), sorted(names))
        if sorted(got) != sorted(names):
            continue
        best = max(permutations(names), key=lambda order: (_shared_by_all(parts, order), _shared_by_pairs(parts, order)))
        for what, measure in (("all requests", _shared_by_all), ("pairs of requests", _shared_by_pairs)):
            yield holds(
                f"no other order gives {what} a longer beginning in common",
                measure(parts, got) == measure(parts, best),
                given=given,
                expected=f"as good as {list(best)}",
                actual=str(list(got)),
            )


def count_hits(requests: Sequence[Sequence[int]], capacity: int) -> int:
    """Blocks that a prefix cache of `capacity` blocks serves over all requests, each given as the ids of its blocks.

    The cache evicts the least recently used block first; of one request, the tail goes before the beginning.
    """
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for ids in requests:
        for id in ids:
            if id not in kept:
                break
            hits += 1
        for id in reversed(ids[:capacity]):
            kept[id] = None
            kept.move_to_end(id)
        while len(kept) > capacity:
            kept.popitem(last=False)
    return hits


def _anywhere(requests: Sequence[Sequence[int]], capacity: int) -> int:
    """Near miss: a block counts as a hit wherever it stands, even behind a miss."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for ids in requests:
        hits += sum(id in kept for id in ids)
        for id in reversed(ids[:capacity]):
            kept[id] = None
            kept.move_to_end(id)
        while len(kept) > capacity:
            kept.popitem(last=False)
    return hits


def _beginning_first(requests: Sequence[Sequence[int]], capacity: int) -> int:
    """Near miss: evicts a request's beginning first, the only part that other requests could use."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for ids in requests:
        for id in ids:
            if id not in kept:
                break
            hits += 1
        for id in ids:
            kept[id] = None
            kept.move_to_end(id)
        while len(kept) > capacity:
            kept.popitem(last=False)
    return hits


def _check_hits(answer: Callable[[Sequence[Sequence[int]], int], int], rng: random.Random) -> Iterator[Outcome]:
    yield agree(answer, [[1, 2, 3], [1, 2, 4]], 10, expected=2, why="The second request finds blocks 1 and 2.")
    yield agree(answer, [[1, 2, 3], [9, 2, 3]], 10, expected=0, why="Behind the first miss nothing counts.")
    yield agree(
        answer, [[1, 2, 3], [1, 2, 5]], 2, expected=2, why="Two blocks stay: the beginning, for the tail goes first."
    )
    for _ in range(20):
        names = list(range(200))
        trunks = [[names.pop(rng.randrange(len(names))) for _ in range(rng.randrange(1, 6))] for _ in range(4)]
        requests = []
        for _ in range(rng.randrange(3, 25)):
            tail = [1000 + rng.randrange(30) for _ in range(rng.randrange(0, 4))]
            requests.append([*rng.choice(trunks), *dict.fromkeys(tail)])
        capacity = rng.randrange(2, 20)
        yield agree(answer, requests, capacity, expected=block_hits(requests, capacity).hits)


_TAIL_GOES = "what a request has beyond the capacity is entered first, so it is dropped at once: the same blocks stay"

CHAPTER = Chapter(
    number="03",
    name="prompt_caching",
    title="Prompt caching: what a stable prefix is worth",
    predictions=("03.warm", "03.clock", "03.once"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("03.input", "03.wait"),
    needs=("answers", "metrics", "tokenizer"),
    exercises=(
        Exercise(
            id="03.1",
            title="What a cache of blocks can serve",
            minutes=5,
            difficulty=1,
            answer="cached_tokens",
            check=_check_cached,
            reference=cached_tokens,
            hints=(
                "Only full blocks are kept: round down to a multiple of the block.",
                "At least one token must be computed, or nothing says what comes next: never more than prompt − 1.",
            ),
            wrong=(
                lambda shared, prompt, block: shared // block * block,
                lambda shared, prompt, block: min(shared, prompt - 1),
            ),
        ),
        Exercise(
            id="03.2",
            title="What caching saved of the input bill",
            minutes=5,
            difficulty=1,
            answer="input_saving",
            check=_check_saving,
            reference=input_saving,
            hints=(
                "A usage knows its `fresh_input_tokens`, `cached_tokens` and `cache_write_tokens`, disjoint.",
                "Compare what was paid with `plain` for every input token. A loss is a saving below 0.",
            ),
            wrong=(
                lambda usages, plain, cached, write: (
                    sum(u.cached_tokens for u in usages) / sum(u.input_tokens for u in usages)
                ),
                lambda usages, plain, cached, write: (
                    sum(u.cached_tokens for u in usages) * (plain - cached) / plain / sum(u.input_tokens for u in usages)
                ),
            ),
        ),
        Exercise(
            id="03.3",
            title="Put a template in order",
            minutes=10,
            difficulty=2,
            answer="stable_first",
            check=_check_order,
            reference=stable_first,
            hints=(
                "What is the same in every request goes first; what is different in every request goes last.",
                "Count how many different texts a part has: `len(set(texts))`, and sort by that.",
            ),
            wrong=(
                list,
                lambda parts: sorted(parts, key=lambda name: -len(set(parts[name]))),
                lambda parts: sorted(parts, key=lambda name: len(set(parts[name])) == len(parts[name])),
                lambda parts: sorted(parts, key=_NAMES.index),
            ),
        ),
        Exercise(
            id="03.4",
            title="Write the cache",
            minutes=20,
            difficulty=3,
            answer="count_hits",
            check=_check_hits,
            reference=count_hits,
            hints=(
                "Hits are the leading run: stop at the first block that is not there.",
                "An `OrderedDict` keeps the order of use: `move_to_end` on use, `popitem(last=False)` takes the oldest.",
                "Enter a request's blocks from its tail to its beginning, so that the beginning is the youngest. Of one "
                "larger than the cache only the first `capacity` blocks can stay.",
            ),
            wrong=(_anywhere, _beginning_first),
            equivalent={
                "line 13: ids[:capacity] -> ids[:capacity + 1]": _TAIL_GOES,
                "line 13: ids[:capacity] -> ids[:]": _TAIL_GOES,
            },
        ),
        b03.BUILD,
    ),
)
