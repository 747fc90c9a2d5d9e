"""Chunks: the knapsack against brute force, and budgets that hold whatever the prompt."""

from __future__ import annotations

import asyncio
import random
from itertools import combinations

import numpy as np
import pytest

from labkit.request import InvalidRequest, InvalidValue, Message, Request, ToolCall
from labkit.shrink import FACTS, MARKED, NOTHING, ByNearness, Chunks, by_score, find_chunks, knapsack
from tests.caches.words import Words
from tests.shrink.talk import SAID, words


def best_by_hand(values, sizes, room) -> float:
    return max(
        sum(values[n] for n in chosen)
        for k in range(len(values) + 1)
        for chosen in combinations(range(len(values)), k)
        if sum(sizes[n] for n in chosen) <= room
    )


def test_the_knapsack_is_exact() -> None:
    rng = random.Random(5)
    for _ in range(300):
        n = rng.randrange(0, 9)
        values = [rng.choice((rng.random(), float(rng.randrange(-2, 5)))) for _ in range(n)]
        sizes = [rng.randrange(0, 12) for _ in range(n)]
        room = rng.randrange(0, 40)
        found = knapsack(values, sizes, room)
        assert found == sorted(set(found))
        assert sum(sizes[i] for i in found) <= room
        assert sum(values[i] for i in found) == pytest.approx(best_by_hand(values, sizes, room))
        assert all(values[i] > 0 for i in found)


def test_of_equal_values_the_knapsack_takes_the_smaller_load() -> None:
    assert knapsack([1.0, 1.0], [5, 3], 5) == [1]
    assert knapsack([2.0, 1.0, 1.0], [5, 2, 2], 5) == [1, 2]


def test_the_knapsack_agrees_with_a_program_over_whole_numbers_at_full_size() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    values, sizes = rng.random(200), rng.integers(20, 400, 200)
    found = knapsack(values.tolist(), sizes.tolist(), 8_000)
    peer = scipy.milp(
        -values,
        constraints=scipy.LinearConstraint(sizes[None, :], ub=8_000),
        integrality=np.ones(200),
        bounds=scipy.Bounds(0, 1),
    )
    assert values[found].sum() == pytest.approx(-peer.fun, rel=1e-3)  # the peer stops within its own tolerance
    assert values[found].sum() >= -peer.fun - 1e-9


def test_a_knapsack_that_makes_no_sense_is_refused() -> None:
    for values, sizes, room in (
        ([1.0], [1, 2], 3),
        ([float("nan")], [1], 3),
        ([1.0], [-1], 3),
        ([1.0], [1], -1),
        ([1.0], [1.5], 3),
    ):
        with pytest.raises(InvalidValue, match="sizes"):
            knapsack(values, sizes, room)
    assert knapsack([], [], 10) == []


TEXT = (
    'Answer from these.\n<chunk id="a" score="0.9">the tent is green</chunk>\n'
    "<chunk id=b score=0.5>boots are red and very very long</chunk>\n<chunk>no mark</chunk>\nWhat is green?"
)


def shrink(lever, *texts: str):
    return asyncio.run(lever.shrink(Request(tuple(Message("user", text) for text in texts))))


def test_chunks_are_found_with_their_marks() -> None:
    found = find_chunks((Message("system", "x"), Message("user", TEXT), Message("user", "<chunk>open")))
    assert [(c.message, c.id, c.score, c.text) for c in found] == [
        (1, "a", 0.9, "the tent is green"), (1, "b", 0.5, "boots are red and very very long"), (1, "", None, "no mark"),
    ]  # fmt: skip
    assert [TEXT[c.start : c.end] for c in found][2] == "<chunk>no mark</chunk>"
    odd = find_chunks(
        (Message("user", "<chunk score='nan' id='ü 1'>a</chunk><chunk score=high>b</chunk><chunks>c</chunks>"),)
    )
    assert [(c.id, c.score) for c in odd] == [("ü 1", None), ("", None)]


def test_order_keeps_what_still_fits_and_value_what_is_worth_most() -> None:
    sizes = [words(TEXT[c.start : c.end]) for c in find_chunks((Message("user", TEXT),))]
    assert sizes == [13, 16, 6]
    assert "boots" not in shrink(Chunks(20, count=words), TEXT).after[0].content
    scored = TEXT.replace("<chunk>", "<chunk score=0.01>").replace("score=0.5", "score=0.99")
    left = shrink(Chunks(20, by_score, words), scored)
    assert "boots" in left.after[0].content
    assert "tent" not in left.after[0].content
    assert "chunk 0 (a): 13 tokens, worth 0.9; others are worth more together" in left.explain()
    near = shrink(Chunks(13, ByNearness(Words()), words), TEXT)
    assert "the tent is green" in near.after[0].content
    assert near.after[0].content.startswith("Answer from these.\n<chunk")
    assert near.after[0].content.endswith("</chunk>\nWhat is green?")


def test_a_prompt_within_the_budget_is_left_alone() -> None:
    assert shrink(Chunks(35, by_score, words), TEXT).after[0].content == TEXT  # not even its missing score is asked for
    assert shrink(Chunks(0), "no chunks here").explain() == "nothing was removed"


def test_a_value_of_ones_own_must_give_a_number_for_each() -> None:
    with pytest.raises(InvalidRequest, match="chunk 2 '' has no score"):
        shrink(Chunks(5, by_score, words), TEXT)
    for value in (lambda q, c: [1.0], lambda q, c: [float("inf")] * 3):
        with pytest.raises(InvalidValue, match="finite number for each"):
            shrink(Chunks(5, value, words), TEXT)
    seen = []
    shrink(Chunks(5, lambda question, chunks: seen.append(question) or [0.0] * len(chunks), words), TEXT)
    assert seen == ["Answer from these.\n\n\n\nWhat is green?"]


def test_budgets_hold_protected_chunks_stay_and_too_small_budgets_say_what_they_need() -> None:
    rng = random.Random(11)
    refused = 0
    for _ in range(200):
        messages = []
        for role in rng.sample(("system", "user", "tool", "user"), rng.randrange(1, 5)):
            marks = [f"<chunk score={rng.random():.2f}>{rng.choice(SAID)}</chunk>" for _ in range(rng.randrange(0, 5))]
            messages.append(Message(role, rng.choice(SAID) + "\n" + rng.choice(("\n", " ", "")).join(marks)))
        lever = Chunks(rng.randrange(0, 120), rng.choice((None, by_score)), words, rng.choice((NOTHING, MARKED, FACTS)))
        found = find_chunks(messages)
        texts = [messages[c.message].content[c.start : c.end] for c in found]
        try:
            after = asyncio.run(lever.shrink(Request(tuple(messages)))).after
        except InvalidRequest as error:
            needed = int(str(error).partition("need ")[2].split(";")[0])
            refused += 1
            assert needed > lever.tokens
            assert needed <= sum(map(words, texts))
            after = asyncio.run(Chunks(needed, lever.value, words, lever.protect).shrink(Request(tuple(messages)))).after
            lever = Chunks(needed, lever.value, words, lever.protect)
        left = find_chunks(after)
        kept = [after[c.message].content[c.start : c.end] for c in left]
        assert sum(map(words, kept)) <= lever.tokens
        rest = iter(texts)
        assert all(text in rest for text in kept)  # in their order
        for before, now in zip(messages, after, strict=True):
            spans = [before.content[a:b] for a, b in lever.protect.spans(before.content)]
            assert [now.content[a:b] for a, b in lever.protect.spans(now.content)] == spans
    assert refused > 10


def test_calls_of_tools_are_not_touched() -> None:
    messages = (
        Message("user", "q"), Message("assistant", "", (ToolCall("a", "find", "{}"),)),
        Message("tool", "<chunk>one two three</chunk>\n<chunk>four</chunk>", tool_call_id="a"),
    )  # fmt: skip
    after = asyncio.run(Chunks(6, count=words).shrink(Request(messages))).after
    assert after[:2] == messages[:2]
    assert after[2].tool_call_id == "a"
    assert after[2].content == "<chunk>four</chunk>"


def test_settings_that_cannot_work_are_refused() -> None:
    for settings, message in (
        ({"tokens": -1}, "tokens is"),
        ({"tokens": 1, "value": 3}, "value is"),
        ({"tokens": 1, "count": 3}, "count is"),
    ):
        with pytest.raises(InvalidValue, match=message):
            Chunks(**settings)
