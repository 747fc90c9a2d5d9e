"""The tasks' ground truth is worked out again here from the prompts alone, by other means than the generator's."""

from __future__ import annotations

import datetime
import json
import re
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.lab import Example, examples, families, grade
from labkit.lab.tasks import Difficulty, Split
from labkit.request import InvalidValue

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def some(family: str, n: int = 300, split: Split = "test", seed: int = 11) -> list[Example]:
    return list(examples(split, family, n, seed))


def anything(draw_from: Split = "test") -> st.SearchStrategy[Example]:
    return st.builds(
        lambda family, seed: next(examples(draw_from, family, 1, seed)), st.sampled_from(families()), st.integers(0, 10**6)
    )


def entities(split: Split, seed: int) -> Iterator[tuple[str, str]]:
    """(kind, entity) of a split, read back from what the prompts and answers say."""
    for e in examples(split, "extract", 1500, seed):
        facts = json.loads(e.answer)
        yield "order", facts["order"]
        yield "person", facts["name"]
        yield "brand", facts["product"].split()[0]
    for e in examples(split, "normalise", 1500, seed):
        yield "value", e.answer
    for e in examples(split, "summary", 1500, seed):
        quantity_product, _, rest = e.answer.partition(" to ")
        yield "brand", quantity_product.split()[2]
        yield "city", rest.split(",")[0]
    for e in examples(split, "total", 1500, seed):
        for quantity, brand, price in re.findall(r"(\d+) x (\w+) \w+ at (\d+)", e.messages[1].content):
            yield "line", f"{quantity} x {price}"
            yield "brand", brand
    for e in examples(split, "policy", 1500, seed):
        yield "brand", re.findall(r"bought a (\w+) \w+ \d+ days", e.messages[1].content)[0]
        for town in re.findall(r"(?:The|Staff in|Boxes for) (\w+) (?:store|wear|carry)", e.messages[0].content):
            yield "city", town


@pytest.mark.parametrize(("left", "right"), [("train", "dev"), ("train", "test"), ("dev", "test")])
def test_no_two_splits_share_an_entity(left: Split, right: Split) -> None:
    ours, theirs = set(entities(left, 1)), set(entities(right, 2))
    for kind in ("order", "person", "brand", "value", "city", "line"):
        assert len([1 for k, _ in ours if k == kind]) >= 15, f"too few {kind} entities for the comparison to mean anything"
    assert not ours & theirs


def test_no_test_wording_of_a_question_or_an_intent_is_trained_on() -> None:
    def wordings(split: Split, family: str) -> set[str]:
        found = set()
        for e in examples(split, family, 3000, 5):
            text = re.sub(r"^(Hi\. |Hello, |Good morning\. |Hey there, |Dear team, )", "", e.messages[1].content)
            found.add(re.split(r" the \w+ \w+\.|\?(?: |$)", text)[0])
        return found

    for family in ("faq", "intent"):
        trained, held_out = wordings("train", family), wordings("test", family)
        assert len(held_out) >= 10
        assert not trained & held_out


@pytest.mark.parametrize("family", families())
def test_the_same_arguments_give_the_same_examples_and_another_seed_gives_others(family: str) -> None:
    assert some(family, 20) == some(family, 20)
    assert some(family, 20) != some(family, 20, seed=12)
    assert some(family, 5) == some(family, 20)[:5]


def test_ids_are_unique() -> None:
    ids = [e.id for split in SPLITS for family in families() for e in examples(split, family, 50)]
    assert len(set(ids)) == len(ids)


@given(anything())
def test_the_reference_answer_passes_with_and_without_reasoning_before_it(example: Example) -> None:
    assert grade(example, example.answer)
    assert grade(example, f"  {example.answer}\n")
    assert grade(example, f"<think>{example.steps}</think>{example.answer}")


@given(anything(), st.data())
def test_an_answer_with_one_character_changed_fails(example: Example, data: st.DataObject) -> None:
    # Of JSON, only what the keys and values say: space between them means nothing.
    places = [i for i, c in enumerate(example.answer) if c.isalnum() or example.family != "extract"]
    at = data.draw(st.sampled_from(places))
    other = data.draw(st.characters(codec="utf-8", exclude_characters=example.answer[at]))
    assert not grade(example, example.answer[:at] + other + example.answer[at + 1 :])


@given(anything(), st.text("abc 123", min_size=1).filter(str.strip))
def test_an_answer_with_something_added_or_nothing_in_it_fails(example: Example, more: str) -> None:
    assert not grade(example, f"{example.answer} {more}")
    assert not grade(example, f"{more} {example.answer}")
    assert not grade(example, "")
    assert not grade(example, f"<think>{example.answer}")


def test_json_is_compared_as_values_not_as_text() -> None:
    example = some("extract", 1)[0]
    facts = json.loads(example.answer)
    assert grade(example, json.dumps(dict(reversed(facts.items())), indent=2))
    assert not grade(example, json.dumps({**facts, "quantity": str(facts["quantity"])}))
    assert not grade(example, json.dumps({**facts, "note": ""}))
    assert not grade(example, json.dumps({k: v for k, v in facts.items() if k != "name"}))


def test_every_fact_of_an_extraction_stands_in_the_message() -> None:
    assert some("extract")
    for e in some("extract"):
        facts = json.loads(e.answer)
        assert all(str(facts[key]) in e.messages[1].content for key in ("order", "name", "product", "quantity"))


def test_dates_come_back_as_python_reads_them() -> None:
    seen = 0
    for e in some("normalise"):
        for form in ("%d %B %Y", "%B %d, %Y", "%d.%m.%Y", "%d %b %Y"):
            try:
                day = datetime.datetime.strptime(e.messages[1].content, form).date()
            except ValueError:
                continue
            assert e.answer == day.isoformat()
            seen += 1
            break
    assert seen > 50


def test_phone_numbers_and_prices_keep_all_their_digits() -> None:
    kinds = {
        "phone" if e.answer.startswith("+49") else "price"
        for e in some("normalise")
        if e.answer[-3:] in ("EUR",) or e.answer[0] == "+"
    }
    assert kinds == {"phone", "price"}
    for e in some("normalise"):
        asked, answered = (re.sub(r"\D", "", text) for text in (e.messages[1].content, e.answer))
        if e.answer.startswith("+49"):
            assert asked.removeprefix("0049").removeprefix("0").removeprefix("49")[-9:] == answered.removeprefix("49")
        elif e.answer.endswith("EUR"):
            assert asked == answered


def test_totals_agree_with_the_order_and_the_shipping_rule() -> None:
    assert some("total")
    for e in some("total"):
        goods = sum(int(q) * int(p) for q, p in re.findall(r"(\d+) x \w+ \w+ at (\d+) euros", e.messages[1].content))
        fee, free = map(int, re.findall(r"Shipping is (\d+) euros, free from (\d+)", e.messages[0].content)[0])
        assert e.answer == f"{goods + (fee if goods < free else 0)} EUR"


def test_policy_answers_follow_from_the_policy_text() -> None:
    seen = set()
    for e in some("policy"):
        system, told = (m.content for m in e.messages)
        noun, age = re.findall(r"bought a \w+ (\w+) (\d+) days ago", told)[0]
        windows = re.findall(rf"Return window {noun} (\d+) days\.", system)
        assert len(windows) == 1
        opened, late = re.findall(r"Opened goods get ([a-z ]+)\. Late goods get ([a-z ]+)\.", system)[0]
        limit = int(windows[0]) + (int(re.findall(r"Members get (\d+)", system)[0]) if "I am a member" in told else 0)
        right = late if int(age) > limit else opened if "and opened it" in told else "full refund"
        assert e.answer == right
        seen.add(right)
    assert len(seen) >= 6, "a guess is right too often"


def test_summaries_follow_from_replaying_the_conversation() -> None:
    assert some("summary")
    for e in some("summary"):
        quantity, product, city, paid = 0, "", "", ""
        for turn in re.findall(r"Customer: (.*)", e.messages[1].content):
            number = int(found[0]) if (found := re.findall(r"\d+", turn)) else 0
            if start := re.match(r"(?:I order|Please send) \d+ x (.+) to (\w+)\.", turn):
                quantity, product, city = number, start[1], start[2]
            elif "more" in turn or "extra" in turn:
                quantity += number
            elif "off" in turn or "fewer" in turn:
                quantity -= number
            elif "in all" in turn:
                quantity = number
            elif moved := re.match(r"Send it to (\w+) instead|My new address is in (\w+)", turn):
                city = moved[1] or moved[2]
            else:
                paid = {"I have paid.": "paid", "I will pay later.": "unpaid"}[turn]
        assert e.answer == f"{quantity} x {product} to {city}, {paid}"


@pytest.mark.parametrize("family", families("hard"))
def test_every_equation_and_comparison_in_the_steps_holds(family: str) -> None:
    checked = 0
    for e in some(family):
        for left, right in re.findall(r"(?<![\d*+-])(\d+(?:[*+-]\d+)+)(?:: [\d+= ]*? )?=\s?(\d+)", e.steps):
            total = sum(
                int(p.split("*")[0]) * int(p.split("*")[1]) if "*" in p else int(p) for p in re.findall(r"[+-]?[\d*]+", left)
            )
            assert total == int(right), e.steps
            checked += 1
        for left, right in re.findall(r"(?<![\d+])(\d\+\d(?:\+1)?)=(\d+)", e.steps):  # the columns of a written addition
            assert sum(map(int, left.split("+"))) == int(right), e.steps
        for a, b in re.findall(r"(?<=[: ])(\d)=(\d)(?=[ ;])", e.steps):  # the columns of a comparison
            assert a == b, e.steps
        for a, sign, b in re.findall(r"(\d+)(<=|>=|<|>)(\d+)", e.steps):
            assert {"<=": int(a) <= int(b), ">=": int(a) >= int(b), "<": int(a) < int(b), ">": int(a) > int(b)}[sign], (
                e.steps
            )
    assert checked > 100


@pytest.mark.parametrize(("difficulty", "names"), [("easy", 4), ("hard", 3)])
def test_easy_examples_need_no_steps_and_hard_ones_have_them(difficulty: Difficulty, names: int) -> None:
    assert len(families(difficulty)) == names
    for family in families(difficulty):
        assert all(bool(e.steps) == (difficulty == "hard") and e.difficulty == difficulty for e in some(family, 50))


@pytest.mark.parametrize("family", families())
def test_answers_vary(family: str) -> None:
    assert len({e.answer for e in some(family)}) >= 6


@pytest.mark.parametrize(
    ("split", "family", "n", "named"),
    [("valid", "faq", 1, "valid"), ("test", "poetry", 1, "poetry"), ("test", "faq", -1, "-1")],
)
def test_bad_arguments_are_named(split: Split, family: str, n: int, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        examples(split, family, n)  # at the call: nothing is drawn from it


def test_examples_that_were_used_are_not_kept() -> None:
    tracemalloc.start()
    try:
        list(islice(examples("test", "faq", 200), 200))
        before = tracemalloc.get_traced_memory()[0]
        for _ in examples("test", "faq", 2000):
            pass
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2000 * 100, "training draws hundreds of thousands of examples; none may stay behind"


@settings(max_examples=25)
@given(st.integers(0, 10**9))
def test_dev_and_test_never_give_the_same_prompt(seed: int) -> None:
    assert families("hard")
    for family in families("hard"):
        assert next(examples("dev", family, 1, seed)).messages != next(examples("test", family, 1, seed)).messages
