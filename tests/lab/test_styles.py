"""Answers in a style: the references obey it and are right, and what is wrong or disobeys is told apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.lab import STYLED_FAMILIES, Example, examples, graded, obeys, styled
from labkit.lab.styles import BRIEF_WORDS, FORMS_WITH_STEPS, fact, sentences
from labkit.request import InvalidValue

EASY_FORMS = ("text", "json")
SPLITS = st.sampled_from(("train", "dev", "test"))


def task(split: str, family: str, i: int) -> Example:
    return list(examples(split, family, i + 1, seed=5))[i]  # type: ignore[arg-type]


TASKS = st.builds(task, SPLITS, st.sampled_from(STYLED_FAMILIES), st.integers(0, 30))


def whole(steps: str, answer: str) -> str:
    return f"<think>{steps}</think>{answer}" if steps else answer


@given(TASKS, st.sampled_from(("brief", "normal", "detailed")))
def test_the_reference_of_each_verbosity_is_right_and_obeys(example: Example, verbosity: str) -> None:
    asked = styled(example, verbosity)  # type: ignore[arg-type]
    text = whole(asked.steps, asked.answer)
    assert graded(asked, text)
    assert obeys(asked, text)
    assert graded(example, text), "the plain task takes an answer in any style"


@given(TASKS, st.sampled_from((*EASY_FORMS, *FORMS_WITH_STEPS)))
def test_the_reference_of_each_form_is_right_and_obeys_no_other(example: Example, form: str) -> None:
    if form in FORMS_WITH_STEPS and not example.steps:
        with pytest.raises(InvalidValue, match="has no steps"):
            styled(example, form=form)  # type: ignore[arg-type]
        return
    asked = styled(example, form=form)  # type: ignore[arg-type]
    text = whole(asked.steps, asked.answer)
    assert graded(asked, text)
    assert obeys(asked, text)
    for other in (*EASY_FORMS, *(FORMS_WITH_STEPS if example.steps else ())):
        if other != form:
            assert not obeys(styled(example, form=other), text), other  # type: ignore[arg-type]
    if form != "text":
        said = json.loads(asked.answer)
        assert said["answer"] == example.answer
        assert said.get("steps", example.steps) == example.steps


@given(TASKS, st.integers(1, 40))
def test_at_most_n_words_is_the_longest_that_fits(example: Example, n: int) -> None:
    asked = styled(example, max_words=n)
    assert graded(asked, asked.answer)
    words = len(asked.answer.split())
    shortest = len(fact(example).split())
    assert obeys(asked, asked.answer) == (words <= n) == (n >= shortest)
    more = styled(example, max_words=n + 1)
    assert len(more.answer.split()) >= words
    assert asked.messages[-1].content.endswith(f" in at most {n} words.")


@given(TASKS, TASKS)
def test_the_answer_of_another_task_is_right_only_where_the_fact_is_the_same(one: Example, other: Example) -> None:
    if one.family != other.family:
        return
    same = fact(one) == fact(other) if one.family != "summary" else one.answer == other.answer
    for verbosity in ("brief", "normal", "detailed"):
        text = styled(other, verbosity).answer  # type: ignore[arg-type]
        if one.family == "summary" and verbosity == "brief":
            assert graded(one, text) == (fact(one) == fact(other)), "a brief answer names no product"
        else:
            assert graded(one, text) == same


@given(TASKS)
def test_a_detailed_answer_that_is_cut_off_has_lost_the_fact(example: Example) -> None:
    *before, last = sentences(example)
    assert before
    cut = " ".join(before)
    if example.family == "total":
        assert not graded(example, cut), "the goods are named in euros, the total in EUR"
    elif example.family != "intent":
        assert not graded(example, cut)
    assert graded(example, f"{cut} {last}")


@given(TASKS)
def test_only_the_end_of_the_last_message_changes(example: Example) -> None:
    assert styled(example).messages == example.messages
    asked = styled(example, "brief")
    assert asked.messages[:-1] == example.messages[:-1]
    assert asked.messages[-1].content.startswith(example.messages[-1].content + " ")


def test_wishes_have_few_wordings_and_each_says_one_thing() -> None:
    def wishes(verbosity: str) -> set[str]:
        found = set()
        for example in examples("test", "total", 60):
            asked = styled(example, verbosity)  # type: ignore[arg-type]
            found.add(asked.messages[-1].content.removeprefix(example.messages[-1].content))
        return found

    assert wishes("brief") == {f" {how} {what}." for how in ("Answer", "Reply") for what in ("briefly", "in short")}
    assert len(wishes("detailed")) == 4
    assert not wishes("brief") & wishes("detailed")


def test_json_that_is_cut_off_behind_the_answer_is_still_read() -> None:
    example = task("test", "total", 1)
    assert graded(example, f'{{"answer": "{example.answer}", "steps": "3*4=1')
    assert not graded(example, '{"steps": "3*4=12')
    assert not graded(example, "")


def test_what_disobeys() -> None:
    example = task("test", "faq", 2)
    brief, detailed, few = styled(example, "brief"), styled(example, "detailed"), styled(example, max_words=3)
    assert not obeys(brief, " ".join(["word"] * (BRIEF_WORDS + 1)))
    assert not obeys(brief, "")
    assert not obeys(detailed, fact(example))
    assert obeys(few, "one two three")
    assert not obeys(few, "one two three four")
    assert not obeys(styled(example, form="json"), '{"answer": "x", "more": 1}')
    assert not obeys(styled(example, form="json"), '["answer"]')
    assert not obeys(styled(example, form="json"), '<think>a</think>{"answer": "x"}')


@pytest.mark.parametrize(
    ("family", "wishes", "says"),
    [
        ("extract", {"verbosity": "brief"}, "'extract' has no styles"),
        ("faq", {"verbosity": "terse"}, "verbosity 'terse' is unknown"),
        ("faq", {"form": "xml"}, "form 'xml' is unknown"),
        ("faq", {"max_words": -1}, "max_words is -1"),
        ("faq", {"verbosity": "brief", "form": "json"}, "one of them at a time"),
        ("faq", {"verbosity": "brief", "max_words": 3}, "one of them at a time"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(family: str, wishes: dict, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        styled(task("test", family, 0), **wishes)


def test_a_family_without_styles_is_not_graded_by_them() -> None:
    with pytest.raises(InvalidValue, match="has no styles"):
        graded(task("test", "extract", 0), "x")
