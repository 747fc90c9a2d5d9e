"""Chapter 09: which tokens can go, and whether the bill falls."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, count, islice
from typing import Literal

from labkit.cost import Price, price_request
from labkit.embeddings import Embedder
from labkit.lab import Deck, Example, Thread, draw_policy, policy_example, thread
from labkit.ledger import Booked, Ledger, Row
from labkit.request import Done, Event, Message, Request, Timing, ToolCall, Usage, clock, complete, stack
from labkit.shrink import Holdout, Protect, Sentences, lab_tokens
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b09
from labkit.workbook.chapters.q09 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, holds

Interval = Callable[[int, int], tuple[float, float]]
Split = Literal["train", "dev", "test"]

# --- the chapter's prompts ------------------------------------------------------------------------------------------------

POLICY = "Decide the return by this policy."
"""Where the policy begins in a system prompt: behind this sentence."""


def policy_case(split: Split, i: int, seed: int = 0, filler: int = 30) -> Example:
    """A return to decide by a policy of twelve kinds of goods, with `filler` sentences that decide nothing in it."""
    deck = Deck(split, random.Random(f"chapter 09/{split}/{seed}/{i}"))
    system, told, answer, steps = policy_example(deck, 12, filler)
    messages = (Message("system", system), Message("user", told))
    return Example(f"long policy {i}", "long policy", "hard", messages, answer, steps, 120)


def never_opened(split: Split, n: int, seed: int = 0) -> list[Example]:
    """`n` cases of goods that come back in time and were never opened, so that the answer hangs on that word."""
    every = (policy_case(split, i, seed) for i in count())
    return list(islice((e for e in every if e.answer == "full refund"), n))


def state_after(told: Thread, turn: int) -> Example:
    """The conversation up to a turn (from 1), and the question how the order stands then."""
    system, *said, question = told.example.messages
    messages = (system, *said[: 2 * turn], question)
    return replace(told.example, id=f"{told.example.id}/{turn}", messages=messages, answer=told.states[turn - 1])


def support_case(seed: int) -> tuple[Message, ...]:
    """A prompt as it grows in a support desk: a template, retrieved paragraphs, a tool's answer and a conversation.

    What is in it twice is so by design: a warning in two sections of the template, and a paragraph that was found twice.
    """
    deck = Deck("test", random.Random(f"chapter 09/case/{seed}"))
    rng, order = deck.rng, deck.order()
    policy = draw_policy(deck, 6, 6)
    warning = "Be friendly and brief, and never promise anything that the returns policy below does not say."
    rules = policy.text.removesuffix(" ".join(policy.sentences)).strip()
    lines = "\n".join(f"- {sentence}" for sentence in policy.sentences)
    found = [" ".join(policy.sentences[i : i + 3]) for i in (0, 3, 0)]  # the first one is found twice
    template = (
        f"# Support desk   \n\n\nYou work at the support desk of Trailhead Supply.   \n\n{warning}\n\n\n\n## Returns "
        f"policy\n\n{rules}\n\n"
        f"{lines}\n\n\n## Before you answer\n\n{warning}\n\n\n## Found in the handbook\n\n" + "\n\n\n".join(found) + "\n\n\n"
    )
    items = [
        {
            "order_number": order,
            "position": i + 1,
            "product_name": deck.product(),
            "quantity": rng.randrange(1, 5),
            "price_euros": rng.randrange(11, 100),
            "gift_wrapping": None,
            "discount_code": None,
            "shipped": rng.random() < 0.5,
        }
        for i in range(8)
    ]
    call = ToolCall("call-1", "order_positions", json.dumps({"order_number": order}))
    return (
        Message("system", template),
        Message("user", f"Hello,   I am {deck.person()}.\n\n\nWhat is in my order {order}?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", json.dumps(items, indent=4), tool_call_id="call-1"),
        Message("assistant", f"Your order {order} has {len(items)} positions. What would you like to know?"),
        Message("user", f"Which of them have you sent?   Please look them up.\n\n{deck.person()}"),
    )


def sentences_at(near: Embedder, task: Example, rate: float, protect: Protect) -> Sentences:
    """The shrinker that leaves the policy's sentences nearest to the question, so that about `rate` of the prompt stays."""
    whole = sum(lab_tokens(message.content) for message in task.messages)
    policy = task.messages[0].content.partition(POLICY)[2]
    room = max(0, round(rate * whole) - (whole - lab_tokens(policy)))
    least = sum(lab_tokens(policy[a:b]) for a, b in protect.spans(policy))
    return Sentences(near, tokens=max(room, 2 * least), begin=POLICY, end="", protect=protect)


@dataclass(frozen=True, slots=True)
class Played:
    """Conversations that were played through a stack with a holdout: the ledger's `rows`, and what is true of all of them.

    `costs`: by way ("shrunk", "whole") and conversation, what each call cost when all of them were played that way (USD);
    `truth`: the saving a conversation that follows, as a share.
    """

    holdout: Holdout
    rows: tuple[Row, ...]
    costs: Mapping[str, Mapping[str, Sequence[float]]]
    truth: float


async def played(holdout: Holdout, keys: int, seed: int, price: Price) -> Played:
    """Plays `keys` conversations of 2 to 15 turns, a call a turn. Their tokens are counted and priced; no model is asked."""
    tokens = cache(lab_tokens)

    def used(messages: Sequence[Message]) -> Usage:
        return Usage(sum(tokens(message.content) for message in messages), 20)

    async def counting(request: Request) -> AsyncGenerator[Event, None]:
        at = clock.now()
        yield Done(used(request.messages), Timing(at, done=at), model="counted")

    ledger = Ledger(":memory:")
    handler = stack(holdout, Booked(ledger, {"*": price}, provider="counted"), engine=counting)
    costs: dict[str, dict[str, list[float]]] = {"shrunk": {}, "whole": {}}
    for number in range(keys):
        turns = min(15, 2 + int(random.Random(f"chapter 09/played/{seed}/{number}").expovariate(0.25)))
        told, key = thread("test", number, turns=turns, chatter=0.3, seed=seed), f"conversation {number}"
        for turn in range(1, turns + 1):
            request = Request(state_after(told, turn).messages, workflow=key)
            await complete(handler, request)
            ways = {"shrunk": (await holdout.shrinker.shrink(request)).after, "whole": request.messages}
            for way, messages in ways.items():
                costs[way].setdefault(key, []).append(float(price_request(used(messages), price).total))
    spent = {way: sum(map(sum, of.values())) for way, of in costs.items()}
    return Played(holdout, tuple(ledger.rows()), costs, 1 - spent["shrunk"] / spent["whole"])


# --- the exercises --------------------------------------------------------------------------------------------------------


def may_stand(whole: Sequence[bool], cut: Sequence[bool], saved_usd: float, wrong_usd: float, interval: Interval) -> str:
    """Whether a cut may stand, from the same questions asked with the whole prompt and with the cut one."""
    lost = sum(before and not after for before, after in zip(whole, cut, strict=True))
    low, high = interval(lost, len(whole))
    if high * wrong_usd <= saved_usd:
        return "let it stand"
    return "take it back" if low * wrong_usd > saved_usd else "ask more"


def _point(lost: int, asked: int) -> tuple[float, float]:
    return lost / asked, lost / asked


def _wide(lost: int, asked: int) -> tuple[float, float]:
    return lost / asked / 2, (lost + 4) / (asked + 4)


def _check_stand(answer: Callable[..., str], rng: random.Random) -> Iterator[Outcome]:
    right, four = [True] * 8, [False] * 4 + [True] * 4
    yield agree(
        answer,
        right,
        four,
        0.125,
        0.25,
        _point,
        expected="let it stand",
        why="Half of the answers are lost, at 0.25 USD each: 0.125 USD a question, just what the cut saves.",
    )
    yield agree(
        answer,
        right,
        [False] * 5 + [True] * 3,
        0.125,
        0.25,
        _point,
        expected="take it back",
        why="Five of eight answers are lost: more than the cut saves.",
    )
    yield agree(
        answer,
        right,
        four,
        0.0625,
        0.25,
        lambda lost, asked: (0.25, 0.75),
        expected="ask more",
        why="At the lower end the lost answers cost just what is saved, at the upper end more: nobody knows.",
    )
    yield agree(
        answer,
        four,
        right,
        0.001,
        0.25,
        _point,
        expected="let it stand",
        why="No answer was lost; four came right.",
    )
    yield agree(
        answer,
        four,
        [not one for one in four],
        0.05,
        0.25,
        _point,
        expected="take it back",
        why="Four answers are lost and four came right. That others came right by chance helps none of those who lost "
        "theirs.",
    )
    yield agree(
        answer,
        [False] * 8,
        [False] * 8,
        0.001,
        0.25,
        _point,
        expected="let it stand",
        why="What was wrong before is not lost by the cut.",
    )
    for _ in range(30):
        asked = rng.randrange(4, 400)
        whole = [rng.random() < 0.9 for _ in range(asked)]
        cut = [(one and rng.random() < 0.9) or rng.random() < 0.05 for one in whole]
        saved, wrong_usd = rng.uniform(0.0001, 0.04), rng.choice((0.05, 0.25, 2.0))
        yield agree(answer, whole, cut, saved, wrong_usd, _wide, expected=may_stand(whole, cut, saved, wrong_usd, _wide))


def best_chunks(values: Sequence[int], tokens: Sequence[int], budget: int) -> list[int]:
    """Places of the chunks with the highest sum of values that fit the budget; of equals, those with the fewest tokens."""
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # tokens taken: the highest value for just so many, and its chunks
    for place, (value, size) in enumerate(zip(values, tokens, strict=True)):
        for taken, (worth, chosen) in list(best.items()):
            if taken + size <= budget and worth + value > best.get(taken + size, (0, []))[0]:
                best[taken + size] = (worth + value, [*chosen, place])
    return best[min(best, key=lambda taken: (-best[taken][0], taken))][1]


def _best_by_trying(values: Sequence[int], tokens: Sequence[int], budget: int) -> tuple[int, int]:
    """The highest value within the budget and the fewest tokens that it takes, by trying every choice."""
    fits = [
        (sum(values[i] for i in some), -sum(tokens[i] for i in some))
        for n in range(len(values) + 1)
        for some in combinations(range(len(values)), n)
        if sum(tokens[i] for i in some) <= budget
    ]
    value, size = max(fits)
    return value, -size


def _check_chunks(answer: Callable[..., list[int]], rng: random.Random) -> Iterator[Outcome]:
    cases = [
        (
            [60, 100, 120],
            [10, 20, 30],
            50,
            "The two large ones fill the budget; by value a token, the small one would come first.",
        ),
        ([5, 5], [30, 20], 40, "Of equals, the one with fewer tokens."),
        ([5, 5], [20, 30], 40, "Of equals, the one with fewer tokens."),
        ([7], [8], 8, "A chunk that just fits is taken."),
        ([7], [8], 7, "What does not fit stays out, and nothing is left to send."),
        ([0, 3], [5, 5], 10, "A chunk without value only costs tokens."),
        ([1], [1], 1, "One token, one chunk."),
        ([4, 4, 4], [5, 5, 5], 10, "A chunk can be taken once."),
        ([9, 1], [3, 3], 6, "Both fit."),
        ([], [], 10, "No chunks, none chosen."),
    ]
    for _ in range(20):
        n = rng.randrange(1, 11)
        sizes = [rng.randrange(1, 40) for _ in range(n)]
        cases.append(([rng.randrange(0, 30) for _ in range(n)], sizes, rng.randrange(1, sum(sizes) + 5), ""))
    for values, sizes, budget, why in cases:
        yield from _chosen(answer, values, sizes, budget, _best_by_trying(values, sizes, budget), why)
    sizes = [rng.randrange(20, 90) for _ in range(60)]  # 2⁶⁰ choices: nobody tries them all
    planted = rng.sample(range(60), 12)
    values = [10 * size if i in planted else size for i, size in enumerate(sizes)]
    budget = sum(sizes[i] for i in planted)
    why = (
        "Twelve chunks are worth ten times as much a token and fill the budget. 60 chunks are too many to try every choice."
    )
    yield from _chosen(answer, values, sizes, budget, (10 * budget, budget), why)


def _chosen(
    answer: Callable[..., list[int]],
    values: Sequence[int],
    sizes: Sequence[int],
    budget: int,
    best: tuple[int, int],
    why: str,
) -> Iterator[Outcome]:
    got = call(answer, values, sizes, budget)
    valid = isinstance(got, list) and all(isinstance(i, int) and 0 <= i < len(values) for i in got)
    given = f"values {list(values)}, tokens {list(sizes)}, budget {budget}"
    yield holds(
        "places of chunks, in the order of the text, each once", valid and got == sorted(set(got)), given=given, actual=got
    )
    if valid:
        value, size = sum(values[i] for i in got), sum(sizes[i] for i in got)
        yield holds(
            "the highest value that fits, in the fewest tokens",
            (value, size) == best,
            given=given,
            expected=f"value {best[0]} in {best[1]} tokens",
            actual=f"{got}: value {value} in {size} tokens",
            why=why,
        )


def best_prefix(
    least: int, now: int, minimum: int, step: int, calls: int, hits: int, fresh: int, cached: int, write: int
) -> int:
    """The length, in tokens, to which a cached prefix is best cut: from `least` to `now`, at the lowest bill."""

    def bill(length: int) -> int:
        kept = length // step * step if length >= minimum else 0
        return hits * kept * cached + (calls - hits) * kept * write + calls * (length - kept) * fresh

    return min(range(now, least - 1, -1), key=bill)


def _prefix_by_hand(
    least: int, now: int, minimum: int, step: int, calls: int, hits: int, fresh: int, cached: int, write: int
) -> int:
    """The same, told otherwise: every call's bill, token by token, for every length."""
    found: list[tuple[int, int]] = []
    for length in range(least, now + 1):
        bill = 0
        whole_steps = length - length % step
        for in_call in (True,) * hits + (False,) * (calls - hits):
            if length < minimum:
                bill += length * fresh
            else:
                bill += whole_steps * (cached if in_call else write) + (length - whole_steps) * fresh
        found.append((bill, -length))
    return -min(found)[1]


def _check_prefix(answer: Callable[..., int], rng: random.Random) -> Iterator[Outcome]:
    for args, why in (
        ((500, 1300, 1024, 128, 10, 10, 10, 1, 10), "1,024 cached tokens cost as much as 102 fresh ones."),
        ((90, 1300, 1024, 128, 10, 10, 10, 1, 10), "90 fresh tokens cost less than 1,024 cached ones."),
        ((500, 1300, 1024, 128, 10, 0, 10, 1, 10), "Nobody finds it in the cache: as short as it gets."),
        ((500, 1000, 1024, 128, 10, 10, 10, 1, 10), "It is not cached anyway."),
        (
            (1100, 1300, 1024, 128, 10, 10, 10, 1, 10),
            "1,152 tokens are 9 full steps; 1,100 are 8 of them and 76 tokens at the full price.",
        ),
        ((1024, 1151, 1024, 128, 10, 10, 10, 1, 10), "The tokens behind the last full step cost the full price."),
        ((500, 1300, 1024, 1, 10, 5, 10, 1, 13), "Half of the calls write it, at a premium; it is cheaper uncached."),
        ((600, 1300, 1024, 1, 10, 9, 10, 1, 13), "One call in ten writes it, and the others read it."),
        ((256, 600, 512, 256, 1, 1, 4, 2, 4), "256 fresh tokens cost what 512 cached ones do. Of equals, the longest."),
        ((4, 8, 8, 8, 2, 1, 2, 1, 1), "Of equals the longest."),
        ((7, 7, 1, 1, 3, 1, 5, 1, 6), "There is nothing to choose."),
        ((9, 10, 10, 1, 1, 1, 1000, 901, 1000), "Nine fresh tokens are a little cheaper than ten cached ones."),
        ((500, 1023, 1024, 128, 10, 10, 10, 1, 10), "Cut, not lengthen: a token more would be cached, but it is not there."),
    ):
        yield agree(answer, *args, expected=_prefix_by_hand(*args), why=why)
    for _ in range(25):
        minimum, step = rng.choice((0, 16, 64, 100)), rng.choice((1, 16, 32))
        least = rng.randrange(1, 120)
        now, calls = least + rng.randrange(0, 150), rng.randrange(1, 8)
        fresh = rng.randrange(4, 20)
        args = (
            least,
            now,
            minimum,
            step,
            calls,
            rng.randrange(calls + 1),
            fresh,
            rng.randrange(1, fresh),
            fresh + rng.randrange(5),
        )
        yield agree(answer, *args, expected=_prefix_by_hand(*args))


Costs = Mapping[str, Sequence[float]]


def saving(cut: Costs, whole: Costs, least: int, z: float = 1.96) -> tuple[float, float, float] | None:
    """The saving of a call and its interval, from the costs of the calls by conversation; None from too few of these."""

    def without(arm: Mapping[str, Sequence[float]], key: str | None) -> float:
        costs = [cost for name, calls in arm.items() if name != key for cost in calls]
        return sum(costs) / len(costs)

    if min(len(cut), len(whole)) < least:
        return None
    found = 1 - without(cut, None) / without(whole, None)
    variance = 0.0
    for arm, ratios in (
        (cut, [without(cut, key) / without(whole, None) for key in cut]),
        (whole, [without(cut, None) / without(whole, key) for key in whole]),
    ):
        n, mean = len(arm), sum(ratios) / len(arm)
        variance += (n - 1) / n * sum((ratio - mean) ** 2 for ratio in ratios)
    return found, found - z * math.sqrt(variance), found + z * math.sqrt(variance)


def _saving_by_sums(cut: Costs, whole: Costs, z: float) -> tuple[float, float, float]:
    """The same from each conversation's sum and count, as a table would have them."""
    a, b = ([(math.fsum(calls), len(calls)) for calls in costs.values()] for costs in (cut, whole))

    def saved(some: Sequence[tuple[float, int]], others: Sequence[tuple[float, int]]) -> float:
        one, other = (math.fsum(s for s, _ in pairs) / sum(n for _, n in pairs) for pairs in (some, others))
        return 1 - one / other

    spread = 0.0
    for values in (
        [saved(a[:i] + a[i + 1 :], b) for i in range(len(a))],
        [saved(a, b[:i] + b[i + 1 :]) for i in range(len(b))],
    ):
        centre = math.fsum(values) / len(values)
        spread += (len(values) - 1) * math.fsum((v - centre) ** 2 for v in values) / len(values)
    found = saved(a, b)
    return found, found - z * spread**0.5, found + z * spread**0.5


def _check_saving(answer: Callable[..., tuple[float, float, float] | None], rng: random.Random) -> Iterator[Outcome]:
    two, three = {"a": [1.0], "b": [1.0]}, {"c": [2.0], "d": [2.0], "e": [2.0]}
    yield agree(
        answer, two, three, 2, expected=(0.5, 0.5, 0.5), why="All alike: nothing is uncertain, and a call costs half."
    )
    yield agree(answer, two, three, 3, expected=None, why="Two conversations were cut, and three are asked for.")
    yield agree(answer, three, two, 3, expected=None, why="Two conversations were left alone, and three are asked for.")
    many = {"f": [2.0] * 40, "g": [2.0] * 40}
    yield agree(answer, many, many, 3, expected=None, why="Eighty calls of two conversations are two conversations.")
    yield agree(
        answer,
        {"a": [1.0, 1.0, 1.0], "b": [5.0]},
        {"c": [2.0], "d": [2.0]},
        2,
        expected=_saving_by_sums({"a": [1.0, 1.0, 1.0], "b": [5.0]}, {"c": [2.0], "d": [2.0]}, 1.96),
        why="A call costs 2 on average in both arms: the mean is over calls, not over conversations.",
    )
    yield agree(answer, three, two, 2, expected=(-1.0, -1.0, -1.0), why="What costs twice as much has a saving of -100 %.")
    for _ in range(15):
        arms = []
        for level in (rng.uniform(0.4, 1.1), 1.0):
            own = [level * rng.lognormvariate(0, 0.4) for _ in range(rng.randrange(4, 30))]
            arms.append(
                {
                    f"k{i}": [one * rng.lognormvariate(0, 0.2) for _ in range(rng.randrange(1, 9))]
                    for i, one in enumerate(own)
                }
            )
        z = rng.choice((1.0, 1.645, 1.96, 2.576))
        expected = _saving_by_sums(arms[0], arms[1], z)
        yield agree(answer, *arms, 4, z, expected=expected, rel=1e-6, abs=1e-9)


def _calls_as_clusters(cut: Costs, whole: Costs, least: int, z: float = 1.96) -> tuple[float, float, float] | None:
    """Near miss: leaves out a call at a time, as if calls of one conversation had nothing to do with one another."""
    if min(len(cut), len(whole)) < least:
        return None
    single = [{f"{k}/{i}": [c] for k, calls in arm.items() for i, c in enumerate(calls)} for arm in (cut, whole)]
    return saving(single[0], single[1], 1, z)


def _counts_calls(cut: Costs, whole: Costs, least: int, z: float = 1.96) -> tuple[float, float, float] | None:
    """Near miss: is content with many calls of few conversations."""
    if min(sum(map(len, arm.values())) for arm in (cut, whole)) < least:
        return None
    return saving(cut, whole, 1, z)


def _mean_of_means(cut: Costs, whole: Costs, least: int, z: float = 1.96) -> tuple[float, float, float] | None:
    """Near miss: each conversation counts as one call."""
    flat = [{k: [sum(calls) / len(calls)] for k, calls in arm.items()} for arm in (cut, whole)]
    return saving(flat[0], flat[1], least, z)


CHAPTER = Chapter(
    number="09",
    name="prompt_compression",
    title="Prompt compression: which tokens can go, and does the bill fall?",
    predictions=("09.lossless", "09.half", "09.cached"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("09.system", "09.history", "09.examples", "09.perplexity", "09.sooner"),
    needs=("vllm",),
    exercises=(
        Exercise(
            id="09.1",
            title="May this cut stand?",
            minutes=6,
            difficulty=1,
            answer="may_stand",
            check=_check_stand,
            reference=may_stand,
            hints=(
                "Lost is what was right with the whole prompt and is wrong with the cut one.",
                "`interval(lost, asked)` gives the lowest and the highest share of lost answers that fits what was seen. "
                "Times "
                "`wrong_usd` that is USD a question, to be held against `saved_usd`.",
                "Let it stand where even the highest share costs no more than is saved; take it back where even the lowest "
                "costs more.",
            ),
            wrong=(
                lambda whole, cut, saved_usd, wrong_usd, interval: may_stand(
                    [True] * len(cut), cut, saved_usd, wrong_usd, interval
                ),
                lambda whole, cut, saved_usd, wrong_usd, interval: may_stand(whole, cut, saved_usd, wrong_usd, _point),
                lambda whole, cut, saved_usd, wrong_usd, interval: may_stand(
                    whole,
                    cut,
                    saved_usd,
                    wrong_usd,
                    lambda lost, asked: interval(max(0, sum(whole) - sum(cut)), asked),
                ),
            ),
        ),
        Exercise(
            id="09.2",
            title="The chunks that are worth their tokens",
            minutes=12,
            difficulty=2,
            answer="best_chunks",
            check=_check_chunks,
            reference=best_chunks,
            hints=(
                "Value a token, highest first, is a good guess and not always the best choice: something may not fit.",
                "Go through the chunks once. Keep for each number of tokens taken so far the highest value that so many can "
                "have, and which chunks give it.",
                "With each chunk, every entry gets a rival: itself and this chunk. Take the entries of before the chunk (a "
                "copy), or it is taken twice.",
            ),
            wrong=(
                lambda values, tokens, budget: _greedy(values, tokens, budget, lambda i: -values[i] / tokens[i]),
                lambda values, tokens, budget: _greedy(values, tokens, budget, lambda i: i),
                lambda values, tokens, budget: _greedy(values, tokens, budget, lambda i: -values[i]),
            ),
            equivalent={
                "line 3: (0, []) -> (1, [])": "every sum of values is one higher",
                "line 6: worth + value > best.get(taken + size, (0, []))[0] -> "
                "worth + value >= best.get(taken + size, (0, []))[0]": "another choice of the same value and size",
                "line 6: best.get(taken + size, (0, [])) -> best.get(taken + size, (0,))": "only its first part is read",
                "line 6: (0, []) -> (-1, [])": "chunks without value take tokens, so they are not chosen in the end",
            },
        ),
        Exercise(
            id="09.3",
            title="How far to cut a prefix that is cached",
            minutes=8,
            difficulty=2,
            answer="best_prefix",
            check=_check_prefix,
            reference=best_prefix,
            hints=(
                "Write the bill of all calls for one length first. Below `minimum` nothing is cached, from there on the "
                "full "
                "steps are.",
                "Of the cached part, `hits` calls pay `cached` a token and the others `write`. What is behind the last full "
                "step costs `fresh`, in every call.",
                "`min(lengths, key=bill)` takes the first of equals: let the lengths run from the longest to the shortest.",
            ),
            wrong=(
                lambda least, now, minimum, step, calls, hits, fresh, cached, write: least,
                lambda least, now, minimum, step, calls, hits, fresh, cached, write: best_prefix(
                    least, now, 0, step, calls, hits, fresh, cached, write
                ),
                lambda least, now, minimum, step, calls, hits, fresh, cached, write: best_prefix(
                    least, now, minimum, 1, calls, hits, fresh, cached, write
                ),
                lambda least, now, minimum, step, calls, hits, fresh, cached, write: best_prefix(
                    least, now, minimum, step, calls, calls, fresh, cached, write
                ),
            ),
        ),
        Exercise(
            id="09.4",
            title="A saving, and how sure it is",
            minutes=15,
            difficulty=3,
            answer="saving",
            check=_check_saving,
            reference=saving,
            hints=(
                "The mean cost of a call: all costs of an arm, whatever their conversation, over their number.",
                "For each conversation of an arm, compute the saving again without it, the other arm whole.",
                "Of each arm's n savings, take (n − 1)/n times the sum of their squared distances from their mean; the two "
                "arms' results add up to the variance.",
            ),
            wrong=(_calls_as_clusters, _counts_calls, _mean_of_means),
            equivalent={"line 17: ratio - mean -> mean - ratio": "the distance is squared"},
        ),
        b09.BUILD,
    ),
)


def _greedy(values: Sequence[int], tokens: Sequence[int], budget: int, rank: Callable[[int], float]) -> list[int]:
    """Near misses: takes chunks in the order of `rank` while they fit."""
    taken: list[int] = []
    for place in sorted(range(len(values)), key=rank):
        if sum(tokens[i] for i in taken) + tokens[place] <= budget:
            taken.append(place)
    return sorted(taken)
