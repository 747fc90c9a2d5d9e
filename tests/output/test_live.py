"""What the room says of vLLM, on vLLM with the lab's models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from labkit.engines import Engine, connect
from labkit.lab import Example, examples, grade
from labkit.output import (
    Cap,
    GrammarRefused,
    InvalidAnswer,
    NoLoops,
    Slot,
    Structured,
    Template,
    ThinkingBudget,
    compare_ways,
)
from labkit.request import Completion, Handler, Request, complete, stack

pytestmark = pytest.mark.live

ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 60}},
    "required": ["answer"],
    "additionalProperties": False,
}
FACTS = {
    "type": "object",
    "properties": {
        "order": {"type": "string", "maxLength": 20},
        "name": {"type": "string", "maxLength": 20},
        "product": {"type": "string", "maxLength": 40},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["order", "name", "product", "quantity"],
    "additionalProperties": False,
}


def _engine(model: str, **arguments: object) -> Iterator[Engine]:
    engine = asyncio.run(connect("vllm", model, progress=lambda step: None, **arguments))
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def small(host: None) -> Iterator[Engine]:
    yield from _engine("small")


@pytest.fixture(scope="module")
def loose(host: None) -> Iterator[Engine]:
    """The small model with vLLM's own default: white space between JSON tokens is free."""
    yield from _engine("small", structured_outputs_config={"backend": "xgrammar"})


@pytest.fixture(scope="module")
def large(host: None) -> Iterator[Engine]:
    yield from _engine("large")


def ask(handler: Handler, tasks: list[Example], max_tokens: int = 100) -> list[Completion]:
    async def all_of_them() -> list[Completion]:
        requests = (Request(task.messages, max_tokens=max_tokens) for task in tasks)
        return await asyncio.gather(*(complete(handler, request) for request in requests))

    return asyncio.run(all_of_them())


def tasks(family: str, n: int) -> list[Example]:
    return list(examples("test", family, n))


def right(asked: list[Example], answers: list[Completion]) -> int:
    return sum(grade(task, answer.text) for task, answer in zip(asked, answers, strict=True))


def test_white_space_up_to_the_limit_and_what_ends_it(small: Engine, loose: Engine) -> None:
    form, spaced = Structured(ANSWER), Structured(ANSWER, spacing="spaced")
    ways = {
        "free white space": stack(form, engine=loose),
        "and loops ended": stack(NoLoops(), form, engine=loose),
        "no white space": stack(form, engine=small),
        "one spacing": stack(spaced, engine=loose),
    }
    requests = [Request(task.messages, max_tokens=100) for task in tasks("faq", 10)]
    free, ended, none, one = asyncio.run(compare_ways(ways, requests))
    assert free.reasons.get("length", 0) >= 4
    assert free.blank > 0.3
    assert "length" not in ended.reasons
    assert ended.reasons["repetition"] >= 4
    assert ended.tokens < free.tokens / 2
    assert none.cut.estimate == one.cut.estimate == 0
    # All of one spacing are valid. The engine's own grammar lets raw control characters into a string with maxLength.
    assert not [answer.done.faults for answer in one.answers if answer.done.faults]


def test_a_grammar_without_white_space_takes_the_right_answers_with_it_and_the_models_own_spacing_does_not(
    small: Engine, loose: Engine
) -> None:
    asked = tasks("extract", 12)
    free = ask(small, asked)
    assert right(asked, free) >= 11
    spaced = ask(stack(Structured(FACTS, spacing="spaced"), engine=small), asked)
    assert [answer.text for answer in spaced] == [answer.text for answer in free]
    assert right(asked, ask(stack(Structured(FACTS), engine=small), asked)) <= 3
    assert right(asked, ask(stack(Structured(FACTS), engine=loose), asked)) >= 11


def test_a_field_in_the_request_takes_no_white_space_away(loose: Engine) -> None:
    asked = tasks("faq", 6)
    bare = ask(stack(Structured(ANSWER), engine=loose), asked)

    async def told() -> list[Completion]:
        extra = {"structured_outputs": {"json": ANSWER, "disable_any_whitespace": True}}
        return [await complete(loose, Request(task.messages, max_tokens=100, extra=extra)) for task in asked]

    assert [answer.text for answer in asyncio.run(told())] == [answer.text for answer in bare]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "integer", "minimum": 0, "maximum": 9, "multipleOf": 3},
        {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True},
        {"type": "string", "format": "iban"},
        {"type": "string", "pattern": "^[a-z]{1,3}$", "maxLength": 3},
        {"allOf": [{"type": "string", "maxLength": 3}, {"enum": ["yes"]}]},
        {"type": "object", "properties": {"a": {"enum": [1]}}, "patternProperties": {"^x": {"enum": [1]}}},
    ],
)
def test_what_the_lint_calls_refused_is_refused_and_the_engine_goes_on(small: Engine, part: dict[str, object]) -> None:
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"], "additionalProperties": False}
    with pytest.raises(GrammarRefused, match=r"\(\$\.properties\.a: xgrammar does not compile"):
        ask(stack(Structured(schema), engine=small), tasks("faq", 1), max_tokens=4)
    assert ask(small, tasks("faq", 1))[0].done.finish_reason == "stop"


def test_an_answer_goes_on_where_the_cap_cut_it(small: Engine) -> None:
    asked = tasks("extract", 6)
    whole = ask(small, asked)
    continued = ask(stack(Cap(17, "continue"), engine=small), asked)
    assert [answer.text for answer in continued] == [answer.text for answer in whole]
    assert {answer.done.route for answer in continued} == {("output:cap-continue",)}
    assert [a.done.usage.output_tokens for a in continued] == [a.done.usage.output_tokens for a in whole]


def test_a_template_writes_the_same_answer_with_fewer_tokens(small: Engine) -> None:
    asked = tasks("extract", 6)
    whole = ask(small, asked)
    text = '{"order": "{{order}}", "name": "{{name}}", "product": "{{product}}", "quantity": {{quantity}}}'
    filled = ask(stack(Template(text, {"quantity": Slot(regex="[0-9]{1,2}")}), engine=small), asked)
    assert [answer.text for answer in filled] == [answer.text for answer in whole]
    written, before = (sum(a.done.usage.output_tokens for a in answers) for answers in (filled, whole))
    assert written < 0.75 * before


def test_a_model_that_may_think_is_held_to_no_form_unless_it_thinks(large: Engine) -> None:
    asked = tasks("faq", 6)
    form = Structured(choice=("yes", "no"))
    free = ask(stack(form, engine=large), asked)
    assert {answer.text for answer in free} & {"yes", "no"} == set()
    assert all(isinstance(answer.done.faults[0].error, InvalidAnswer) for answer in free)
    held = ask(stack(Structured(choice=("yes", "no"), at_once=True), engine=large), asked)
    assert {answer.text for answer in held} <= {"yes", "no"}
    assert not [answer.done.faults for answer in held if answer.done.faults]


def test_a_budget_ends_the_thoughts_and_only_the_form_ends_the_answer(large: Engine) -> None:
    asked = tasks("total", 10)
    form = Structured(regex="[0-9]{1,4} EUR")
    held, shares = {}, {}
    for budget in (20, 200):
        held[budget] = ask(stack(form, ThinkingBudget(budget, answer=10), engine=large), asked, max_tokens=260)
        shares[budget] = right(asked, held[budget])
        for answer in held[budget]:
            assert answer.done.usage.reasoning_tokens <= budget
            assert answer.done.usage.output_tokens <= budget + 12
            assert answer.done.faults == ()
    assert shares[200] >= 7 > 3 >= shares[20]
    aloud = ask(stack(ThinkingBudget(20), engine=large), asked, max_tokens=260)
    spoken = [answer.done.usage.visible_output_tokens for answer in aloud]
    assert sum(spoken) / len(spoken) > 40  # the steps that were forbidden as thoughts are in the answer
