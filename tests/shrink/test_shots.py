"""Examples in a prompt: which are picked, against brute force, and what becomes of the others."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from labkit.engines import ScriptedEngine
from labkit.request import InvalidRequest, InvalidValue, Message, Request, ToolCall, complete, run_virtual, stack
from labkit.shrink import FACTS, NOTHING, Diverse, FewShot, First, Nearest, Shot, ShotsInPrompt
from labkit.shrink.pick import greedy
from labkit.shrink.vectors import Remembered
from tests.caches.words import Words
from tests.shrink.talk import words

EMBEDDER = Words()
POOL = tuple(
    Shot(f"{a} {b}", f"answer {n}")
    for n, (a, b) in enumerate((a, b) for a in ("red", "green", "blue") for b in ("boots", "tent", "rope", "lamp"))
)
S = Message("system", "Name the thing.")


def ask(question: str, *before: Message) -> Request:
    return Request((*before, Message("user", question)))


def picked(lever: FewShot, question: str):
    return asyncio.run(lever.picked(ask(question)))


def cosine(a: str, b: str) -> float:
    x, y = (EMBEDDER.encode([each])[0].astype(float) for each in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def by_hand(question: str, texts: list[str], weight: float, chosen: list[int]) -> list[float]:
    """Marginal relevance as Carbonell and Goldstein write it, in loops over every pair; −9 for what is chosen already."""
    alike = [max((cosine(text, texts[c]) for c in chosen), default=0.0) for text in texts]
    return [
        -9.0 if n in chosen else weight * cosine(question, text) - (1 - weight) * alike[n] for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_diverse_examples_are_those_that_the_formula_picks(weight) -> None:
    rng = random.Random(int(weight * 10))
    vocabulary = ("red", "green", "blue", "boots", "tent", "rope", "lamp", "big", "small", "old", "new")
    for _ in range(25):
        texts = [" ".join(rng.sample(vocabulary, 3)) for _ in range(9)]
        question = " ".join(rng.sample(vocabulary, 3))
        found = greedy(Diverse(EMBEDDER, weight).worths(question, texts), [1] * len(texts), 5)
        assert len(set(found)) == 5
        for i, n in enumerate(found):
            worths = by_hand(question, texts, weight, found[:i])
            assert worths[n] == pytest.approx(max(worths), abs=1e-6)  # of equals, either


def test_at_full_weight_diversity_is_nearness_and_the_pool_order_knows_no_question() -> None:
    texts = [shot.question for shot in POOL]
    near = greedy(Nearest(EMBEDDER).worths("blue rope", texts), [1] * 12, 12)
    assert near == greedy(Diverse(EMBEDDER, 1.0).worths("blue rope", texts), [1] * 12, 12)
    assert texts[near[0]] == "blue rope"
    assert greedy(First().worths("blue rope", texts), [1] * 12, 4) == [0, 1, 2, 3]


def test_diversity_avoids_what_is_alike() -> None:
    pool = tuple(Shot(q, "a") for q in ("wet boots", "boots wet", "wet tent"))
    assert picked(FewShot(pool, 2, pick=Nearest(EMBEDDER)), "my wet boots").chosen == (0, 1)
    assert picked(FewShot(pool, 2, pick=Diverse(EMBEDDER)), "my wet boots").chosen == (0, 2)


def test_a_budget_is_never_exceeded_and_takes_what_still_fits() -> None:
    rng = random.Random(7)
    for _ in range(200):
        pool = tuple(Shot("x" * rng.randrange(1, 60), "y" * rng.randrange(1, 60)) for _ in range(rng.randrange(1, 9)))
        tokens, k = rng.randrange(0, 60), rng.choice((None, 1, 3))
        pick = rng.choice((First(), Nearest(EMBEDDER), Diverse(EMBEDDER)))
        found = picked(FewShot(pool, k, tokens, pick, count=words), "q")
        sizes = [words(shot.question) + words(shot.answer) for shot in pool]
        used = sum(sizes[n] for n in found.chosen)
        assert used <= tokens
        assert len(found.chosen) <= (len(pool) if k is None else k)
        assert set(found.chosen) | set(found.left_out) == set(range(len(pool)))
        assert not set(found.chosen) & set(found.left_out)
        if k is None or len(found.chosen) < k:
            assert all(sizes[n] > tokens - used for n in found.left_out)


def test_an_example_that_asks_the_question_is_left_out_and_named() -> None:
    pool = (Shot("Where is  it?", "here"), Shot("who", "me"))
    found = picked(FewShot(pool, k=2, pick=Nearest(EMBEDDER)), "where IS it?")
    assert found.chosen == (1,)
    assert found.explain() == "example 0 'Where is  it?': out: asks the question itself\nexample 1 'who': choice 1"
    assert set(picked(FewShot(pool, k=2, pick=Nearest(EMBEDDER), same=True), "where IS it?").chosen) == {0, 1}
    assert picked(FewShot(pool[:1], k=1, pick=Nearest(EMBEDDER)), "where is it?").chosen == ()


def test_examples_stand_between_the_system_and_the_conversation() -> None:
    before = (S, Message("user", "hi"), Message("assistant", "hello"))
    question = "my blue tent"
    near = sorted(POOL, key=lambda shot: -cosine(shot.question, question))[:2]
    assert near[0].question == "blue tent"
    for order, wanted in (("pool", sorted(near, key=POOL.index)), ("nearest last", near[::-1])):
        engine = ScriptedEngine("ok", gap_s=0)
        lever = FewShot(POOL, k=2, pick=Nearest(EMBEDDER), order=order)
        answer = run_virtual(complete(stack(lever, engine=engine), ask(question, *before)))
        sent = engine.asked[0].messages
        assert sent == (S, *wanted[0].messages, *wanted[1].messages, *before[1:], Message("user", question))
        assert answer.done.route == ("shrink:FewShot",)


def test_the_same_choice_is_the_same_text_in_pool_order() -> None:
    lever, engine = FewShot(POOL, k=12, pick=Nearest(EMBEDDER)), ScriptedEngine("ok", gap_s=0)
    for question in ("blue thing", "red thing"):
        run_virtual(complete(stack(lever, engine=engine), ask(question, S)))
    first, second = (request.messages for request in engine.asked)
    assert first[:-1] == second[:-1]


def test_a_pick_that_fails_costs_nobody_the_answer() -> None:
    class Broken:
        def worths(self, question, texts):
            raise RuntimeError("no vectors")

    engine = ScriptedEngine("ok", gap_s=0)
    answer = run_virtual(complete(stack(FewShot(POOL, k=1, pick=Broken()), engine=engine), ask("q", S)))
    assert answer.text == "ok"
    assert str(answer.done.faults[0]) == "shrink: no vectors"
    assert answer.done.route == ()
    assert len(engine.asked[0].messages) == 2


def prompt(question: str, pool=POOL[:6]) -> Request:
    return ask(question, S, *(message for shot in pool for message in shot.messages))


def test_of_the_examples_in_a_prompt_the_best_stay_in_their_order_and_each_other_is_explained() -> None:
    lever = ShotsInPrompt(6, k=2, pick=Nearest(EMBEDDER), protect=NOTHING)
    question = "a green boots"
    shrunk = asyncio.run(lever.shrink(prompt(question)))
    near = sorted(POOL[:6], key=lambda shot: -cosine(shot.question, question))[:2]
    first, second = sorted(near, key=POOL.index)
    assert shrunk.after == (S, *first.messages, *second.messages, Message("user", question))
    lines = shrunk.explain().splitlines()
    assert len(lines) == 8
    assert all("2 others are worth more" in line for line in lines)


def test_examples_with_protected_text_stay_and_limits_below_them_are_refused() -> None:
    request = prompt("blue rope")
    kept = asyncio.run(ShotsInPrompt(6, k=6, protect=FACTS).shrink(request))
    assert kept.after == request.messages
    with pytest.raises(InvalidRequest, match="allow k=6 and tokens=27"):
        asyncio.run(ShotsInPrompt(6, tokens=5, count=words, protect=FACTS).shrink(request))
    marked = prompt("q", (Shot("<keep>red</keep>", "a"), *POOL[:2]))
    shrunk = asyncio.run(ShotsInPrompt(3, k=1).shrink(marked))
    assert [m.content for m in shrunk.after] == [S.content, "<keep>red</keep>", "a", "q"]


def test_an_example_in_the_prompt_that_asks_the_question_goes_first() -> None:
    shrunk = asyncio.run(ShotsInPrompt(6, k=6, protect=NOTHING).shrink(prompt("Red BOOTS")))
    assert "red boots" not in [m.content for m in shrunk.after]
    assert "asks the question itself" in shrunk.explain()


def test_a_prompt_without_so_many_examples_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="7 pairs"):
        asyncio.run(ShotsInPrompt(7, k=1).shrink(prompt("q")))
    with pytest.raises(InvalidRequest, match="nothing behind its 2 pairs"):
        asyncio.run(ShotsInPrompt(2, k=1).shrink(Request((S, *POOL[0].messages, *POOL[1].messages))))


def test_a_pair_that_calls_tools_is_no_example() -> None:
    call = Message("assistant", "", (ToolCall("a", "look", "{}"),))
    messages = (Message("user", "x"), call, Message("tool", "y", tool_call_id="a"), Message("user", "q"))
    with pytest.raises(InvalidRequest, match="without calls of tools"):
        asyncio.run(ShotsInPrompt(1, k=0).shrink(Request(messages)))


def test_settings_that_cannot_work_are_refused() -> None:
    bad = (
        ({"k": -1}, "k is"), ({}, "neither k nor tokens"), ({"tokens": 1.5}, "tokens is"), ({"k": 1, "pick": 3}, "pick is"),
        ({"k": 1, "count": 3}, "count is"),
    )  # fmt: skip
    for settings, message in bad:
        with pytest.raises(InvalidValue, match=message):
            FewShot(POOL, **settings)
        with pytest.raises(InvalidValue, match=message):
            ShotsInPrompt(2, **settings)
    with pytest.raises(InvalidValue, match="pool is"):
        FewShot((), k=1)
    with pytest.raises(InvalidValue, match="order is"):
        FewShot(POOL, k=1, order="random")
    with pytest.raises(InvalidValue, match="shots is"):
        ShotsInPrompt(0, k=1)
    with pytest.raises(InvalidValue, match="weight is"):
        Diverse(EMBEDDER, 1.5)


def test_a_pool_is_encoded_once_and_the_oldest_vectors_are_forgotten() -> None:
    counted = Words()
    lever = FewShot(POOL, k=2, pick=Nearest(counted))
    first = picked(lever, "blue rope again")
    assert counted.encoded == len(POOL) + 1
    assert picked(lever, "blue rope again") == first
    assert counted.encoded == len(POOL) + 1
    picked(lever, "another")
    assert counted.encoded == len(POOL) + 2
    known = Remembered(counted, limit=2)
    rows = known.encode(["a", "b", "a", "c"])
    assert np.array_equal(rows, counted.encode(["a", "b", "a", "c"]))
    before = counted.encoded
    known.encode(["a", "c"])
    assert counted.encoded == before
    known.encode(["b"])
    assert counted.encoded == before + 1
    assert np.array_equal(known.encode(["\ud83d"]), counted.encode(["?"]))
