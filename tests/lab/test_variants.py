"""Tasks in telegraph style, as conversations, by example and under the policy of the house."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.lab import HOUSE, examples, families, grade, house_example, label_task, split_of, terse, thread, with_shots
from labkit.lab.house import HOUSE as DRAWN
from labkit.lab.shots import MAX_SHOTS
from labkit.lab.tasks import INTENTS, Deck, policy_example
from labkit.lab.threads import MAX_TURNS, MIN_TURNS
from labkit.request import InvalidValue


@given(st.sampled_from(families()), st.integers(0, 40), st.floats(0, 1), st.integers())
def test_terse_prompts_keep_numbers_names_and_negations_in_their_order(family: str, i: int, share: float, seed: int) -> None:
    example = list(examples("test", family, i + 1))[i]
    cut = terse(example, share, random.Random(seed))
    assert cut.answer == example.answer
    for before, after in zip(example.messages, cut.messages, strict=True):
        left = iter(before.content)
        assert all(letter in left for letter in after.content), "what is left stands in its order"
        if before.role == "user":
            kept = re.compile(
                r"\d+|\"[^\"]+\"|\b(?:no|not|never|member|instead|off|more|fewer|extra|all|opened)\b", re.IGNORECASE
            )
            assert kept.findall(after.content) == kept.findall(before.content)


def test_terse_prompts_get_shorter_with_the_share() -> None:
    example = next(examples("test", "policy", 1))
    lengths = [sum(len(m.content) for m in terse(example, s, random.Random(1)).messages) for s in (0.0, 0.5, 1.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == sum(len(m.content) for m in example.messages)
    with pytest.raises(InvalidValue, match=r"share is 1\.5"):
        terse(example, 1.5, random.Random(1))


@given(st.integers(0, 200), st.integers(2, 12), st.integers(0, 40))
def test_a_terse_policy_keeps_the_rules_that_decide_its_case(seed: int, kinds: int, filler: int) -> None:
    from labkit.lab import Example
    from labkit.request import Message

    deck = Deck("test", random.Random(seed))
    system, told, answer, steps = policy_example(deck, kinds, filler)
    example = Example("p", "policy", "hard", (Message("system", system), Message("user", told)), answer, steps)
    text = terse(example, 1.0, random.Random(seed)).messages[0].content
    noun = re.findall(r"window (\w+)", steps)[0]
    assert re.findall(r"Members get \d+ more days\. Opened goods get [a-z ]+\. Late goods get [a-z ]+\.", text)
    assert re.findall(r"window (\w+) (\d+) days", text) == [(noun, re.findall(r"(\d+) days", steps)[0])]


def played(messages: list[str]) -> str:
    """How an order stands, replayed from what the customer says: an implementation of its own."""
    quantity, product, city, paid = 0, "", "", "unpaid"
    for told in messages:
        if m := re.match(r"(?:I order|Please send) (\d+) x (\w+ \w+) to (\w+)\.", told):
            quantity, product, city = int(m[1]), m[2], m[3]
        elif m := re.match(r"So far: (\d+) x (\w+ \w+) to (\w+), (paid|unpaid)\.", told):
            quantity, product, city, paid = int(m[1]), m[2], m[3], m[4]
        elif m := re.match(r"(?:Add|I need) (\d+) (?:more|extra)\.", told):
            quantity += int(m[1])
        elif m := re.match(r"(?:Take|Make it) (\d+) (?:off|fewer)\.", told):
            quantity -= int(m[1])
        elif m := re.match(r"(?:No, make it|Change that to) (\d+) in all", told):
            quantity = int(m[1])
        elif m := re.match(r"(?:Send it to|My new address is in) (\w+)", told):
            city = m[1]
        elif "I have paid" in told:
            paid = "paid"
    return f"{quantity} x {product} to {city}, {paid}"


THREADS = st.builds(
    thread,
    st.sampled_from(("train", "test")),
    st.integers(0, 300),
    turns=st.integers(MIN_TURNS, MAX_TURNS),
    chatter=st.sampled_from((0.0, 0.3, 0.6)),
)


@given(THREADS)
def test_a_threads_answer_is_what_its_messages_add_up_to(found) -> None:  # type: ignore[no-untyped-def]
    _, *turns, _ = found.example.messages
    told = [m.content for m in turns if m.role == "user"]
    assert [m.role for m in turns] == ["user", "assistant"] * len(found.states)
    assert played(told) == found.example.answer == found.states[-1]
    assert [played(told[: i + 1]) for i in range(len(told))] == list(found.states)
    small_talk = [i for i, matters in enumerate(found.matters) if not matters]
    assert all(found.states[i] == found.states[i - 1] for i in small_talk)
    assert played([t for t, matters in zip(told, found.matters, strict=True) if matters]) == found.example.answer


@given(THREADS, st.data())
def test_a_thread_may_start_from_a_line_that_says_how_it_stood(found, data) -> None:  # type: ignore[no-untyped-def]
    turn = data.draw(st.integers(0, len(found.states)))
    for place in ("system", "user"):
        asked = found.since(turn, place)
        said = [m.content for m in asked.messages if m.role == "user"]
        if place == "system" and turn:
            line = "So far: " + asked.messages[0].content.rpartition("So far: ")[2]
            said = [line, *said]
        assert played(said) == found.example.answer
        assert len(asked.messages) <= len(found.example.messages) + 2
    with pytest.raises(InvalidValue, match="turn is 99"):
        found.since(99)


@pytest.mark.parametrize(("asked", "says"), [({"turns": 1}, "turns is 1"), ({"chatter": 1.0}, r"chatter is 1\.0")])
def test_threads_that_cannot_be_are_refused(asked: dict, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        thread("test", 0, **asked)


@given(st.sampled_from(("train", "test")), st.integers(0, 100), st.integers(2, 8), st.integers(1, 5))
def test_a_label_stands_for_one_intent_and_the_pool_has_each_alike(
    split: str, i: int, intents: int, per_intent: int
) -> None:
    task = label_task(split, i, intents=intents, per_intent=per_intent)  # type: ignore[arg-type]
    assert len(task.pool) == intents * per_intent
    meaning = {shot.label: shot.intent for shot in task.pool}
    assert len(meaning) == len(set(meaning.values())) == intents
    assert meaning[task.answer] == task.intent
    assert all(split_of(label) == split for label in meaning)
    assert all(any(core in shot.message for core in INTENTS[shot.intent]) for shot in task.pool)
    assert any(core in task.question for core in INTENTS[task.intent])
    example = with_shots(task, task.pool[:MAX_SHOTS])
    assert example.messages[-1].content == task.question
    assert grade(example, task.answer)
    assert not grade(example, task.intent)
    with pytest.raises(InvalidValue, match="25 shots"):
        with_shots(task, (task.pool[0],) * 25)


@given(st.sampled_from(("train", "dev", "test")), st.integers(0, 300))
def test_the_house_decides_alike_with_and_without_its_policy_in_the_prompt(split: str, i: int) -> None:
    long, short = (house_example(split, i, given) for given in (True, False))  # type: ignore[arg-type]
    assert (long.messages[1], long.answer, long.steps) == (short.messages[1], short.answer, short.steps)
    assert HOUSE.text in long.messages[0].content
    assert HOUSE.text not in short.messages[0].content
    told = long.messages[1].content
    noun, age = re.findall(r"(\w+) (\d+) days ago", told)[0]
    assert split_of(f"{noun} after {age} days") == split
    limit = HOUSE.days[noun] + (HOUSE.bonus if "I am a member" in told else 0)
    wanted = HOUSE.late if int(age) > limit else "full refund" if "never opened" in told else HOUSE.opened
    assert long.answer == wanted


def test_the_house_has_one_policy() -> None:
    assert HOUSE is DRAWN
    assert len(HOUSE.days) == 12
    assert len(HOUSE.sentences) == 52
