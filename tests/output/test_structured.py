"""Answers of a form: what is sent, what is said of an answer that is not of the form, and errors of the engine."""

from __future__ import annotations

import json

import pytest

from labkit.engines import ScriptedEngine
from labkit.output import GrammarRefused, InvalidAnswer, Structured
from labkit.request import EngineError, InvalidValue, Message, Request, complete, run_virtual, stack

from .writer import Writer

SCHEMA = {
    "type": "object",
    "properties": {"order": {"type": "string", "maxLength": 9}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["order", "count"],
    "additionalProperties": False,
}


def ask(handler, **more):
    return run_virtual(complete(handler, Request((Message("system", "Desk."), Message("user", "What?")), **more)))


def test_what_is_sent() -> None:
    engine = Writer(("{",))
    ask(stack(Structured(SCHEMA), engine=engine))
    ask(stack(Structured(SCHEMA, spacing="spaced"), engine=engine))
    ask(stack(Structured(choice=("yes", "no")), engine=engine), extra={"ignore_eos": False})
    ask(stack(Structured(regex="[0-9]{1,3}"), engine=engine))
    first, second, third, fourth = engine.asked
    assert first.response_format["type"] == "json_schema"
    assert first.response_format["json_schema"]["schema"] == SCHEMA
    assert second.response_format is None
    assert second.extra["structured_outputs"]["regex"].startswith(r'\{"order":\ "')
    assert third.extra == {"ignore_eos": False, "structured_outputs": {"choice": ["yes", "no"]}}
    assert fourth.extra == {"structured_outputs": {"regex": "[0-9]{1,3}"}}


@pytest.mark.parametrize(
    ("form", "text", "wrong"),
    [
        (Structured(SCHEMA), '{"order": "A", "count": 3}', ""),
        (Structured(SCHEMA), '{"order": "A", "count": 30}', r"$.count: 30 is greater than the maximum of 9"),
        (Structured(SCHEMA), "It is A.", "not JSON"),
        (Structured(choice=("a.b", "c")), "a.b", ""),
        (Structured(choice=("a.b", "c")), "axb", "does not fit"),
        (Structured(regex="[0-9]+ EUR"), "12 EUR", ""),
        (Structured(regex="[0-9]+ EUR"), "12 EUR.", "does not fit"),
    ],
)
def test_every_answer_is_checked_and_delivered(form, text, wrong) -> None:
    answer = ask(stack(form, engine=Writer((text,))))
    assert answer.text == text
    assert answer.done.route == ("output:structured",)
    assert len(answer.done.faults) == bool(wrong)
    for fault in answer.done.faults:
        assert isinstance(fault.error, InvalidAnswer)
        assert wrong in str(fault.error)


def test_a_cut_answer_is_said_to_be_cut() -> None:
    answer = ask(stack(Structured(SCHEMA), engine=Writer(('{"order":', ' "A"', "}"))), max_tokens=2)
    assert "cut after 2 tokens (length)" in str(answer.done.faults[0])
    looped = ask(stack(Structured(SCHEMA), engine=ScriptedEngine(("{", " "), finish_reason="repetition")))
    assert "cut after 2 tokens (repetition)" in str(looped.done.faults[0])


def test_short_keys_are_told_and_restored() -> None:
    engine = Writer(('{"a": "A1"', ', "b": 3}'))
    answer = ask(stack(Structured(SCHEMA, spacing="spaced", short_keys=True), engine=engine))
    assert json.loads(answer.text) == {"order": "A1", "count": 3}
    assert (len(answer.chunks), answer.chunks[0].tokens, answer.done.faults) == (1, 2, ())
    assert engine.asked[0].messages[0].content == "Desk. Keys: a is order, b is count."
    assert engine.asked[0].extra["structured_outputs"]["regex"].startswith(r'\{"a":\ "')
    broken = ask(stack(Structured(SCHEMA, short_keys=True), engine=Writer(("{'a'",))))
    assert (broken.text, len(broken.done.faults)) == ("{'a'", 1)


def test_at_once_begins_behind_an_empty_thought() -> None:
    engine = Writer(("<think></think>", "no"))
    answer = ask(stack(Structured(choice=("yes", "no"), at_once=True), engine=engine))
    assert (answer.text, answer.done.faults) == ("no", ())
    assert engine.asked[0].messages[-1] == Message("assistant", "<think></think>")
    assert engine.asked[0].extra["continue_final_message"] is True


def test_what_the_engine_cannot_compile_is_told_with_the_place() -> None:
    words = "failed within its answer: The provided JSON schema contains features not supported by xgrammar."
    engine = ScriptedEngine(("x",), fail_at=0, error=EngineError(words, 400))
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "count": {"type": "integer", "multipleOf": 3}}}
    with pytest.raises(GrammarRefused, match=r"not supported by xgrammar\. \(\$\.properties\.count: .*multipleOf") as raised:
        ask(stack(Structured(schema), engine=engine))
    assert raised.value.status == 400
    other = ScriptedEngine(("x",), fail_at=0)
    with pytest.raises(EngineError, match="fell over") as plain:
        ask(stack(Structured(SCHEMA), engine=other))
    assert not isinstance(plain.value, GrammarRefused)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "it got none"),
        ({"schema": SCHEMA, "regex": "x"}, "it got schema, regex"),
        ({"schema": {"type": "objct"}}, r"\$\.type"),
        ({"schema": {"const": object()}}, "object of JSON"),
        ({"schema": SCHEMA, "spacing": "wide"}, "spacing is 'wide'"),
        ({"schema": {"type": "object"}, "spacing": "compact"}, "open object"),
        ({"regex": "("}, "no regular expression"),
        ({"choice": ("a", "")}, "not empty"),
        ({"choice": ("a",), "short_keys": True}, "are for a schema"),
    ],
)
def test_forms_that_cannot_be(wrong, says) -> None:
    with pytest.raises(InvalidValue, match=says):
        Structured(**wrong)


def test_a_check_that_fails_costs_no_answer() -> None:
    deep = "[" * 100_000
    answer = ask(stack(Structured({"type": "array", "maxItems": 1, "items": {"enum": [1]}}), engine=Writer((deep,))))
    assert answer.text == deep
    assert "RecursionError" in str(answer.done.faults[0])
