"""Templates: fixed text from the program, slots from the model."""

from __future__ import annotations

import re

import pytest

from labkit.ledger import Booked, Ledger
from labkit.output import Slot, Template
from labkit.request import EngineError, InvalidValue, Request, complete, run_virtual, stack

from .writer import Writer

# The whole text as the model would write it, a character a token: it goes on from whatever it is told to have written.
WHOLE = "Dear Ada, 42 EUR come back."
TEXT = "Dear {{name}}, {{amount}} EUR come back."


def ask(handler, **more):
    return run_virtual(complete(handler, Request("Refund?", **{"max_tokens": 50, "idempotency_key": "k", **more})))


def test_the_model_writes_the_slots_alone() -> None:
    engine = Writer(tuple(WHOLE))
    with Ledger(":memory:") as ledger:
        answer = ask(stack(Booked(ledger), Template(TEXT, {"amount": Slot(regex="[0-9]{1,4}")}), engine=engine))
        rows = ledger.rows()
    assert answer.text == WHOLE
    assert answer.done.finish_reason == "stop"
    assert answer.done.usage.output_tokens == len("Ada,") + len("42 ")  # each slot and the character that ends it
    assert [row.usage for row in rows] == engine.told
    assert [row.idempotency_key for row in rows] == ["k~slot-0", "k~slot-1"]
    assert [asked.messages[-1].content for asked in engine.asked] == ["Dear ", "Dear Ada, "]
    assert [asked.stop for asked in engine.asked] == [(",",), (" ",)]
    assert engine.asked[1].extra["structured_outputs"]["regex"] == "(?:[0-9]{1,4})\\ "


def test_fixed_text_comes_at_once_and_a_slot_as_it_is_written() -> None:
    async def events():
        return [event async for event in stack(Template(TEXT), engine=Writer(tuple(WHOLE)))(Request("x"))]

    *chunks, _ = run_virtual(events())
    assert [chunk.text for chunk in chunks] == ["Dear ", *"Ada", ", ", *"42", " EUR come back."]
    assert sum(chunk.tokens for chunk in chunks) == 5


def test_a_choice_may_end_where_the_template_goes_on() -> None:
    engine = Writer(tuple("a.b!"))
    assert ask(stack(Template("{{x}}!", {"x": Slot(choice=("a.b", "c"))}), engine=engine)).text == "a.b!"
    assert re.fullmatch(engine.asked[0].extra["structured_outputs"]["regex"], "a.b!")
    assert "continue_final_message" not in engine.asked[0].extra


def test_a_slot_that_is_cut_ends_the_answer() -> None:
    answer = ask(stack(Template(TEXT, {"name": Slot(tokens=2)}), engine=Writer(tuple(WHOLE))))
    assert (answer.text, answer.done.finish_reason) == ("Dear Ad", "length")


@pytest.mark.parametrize("after", [0, 1])
def test_a_later_slot_that_fails_keeps_what_is_filled(after) -> None:
    engine = Writer(tuple(WHOLE), fails=frozenset({2}), after=after)
    answer = ask(stack(Template(TEXT), engine=engine))
    assert (answer.text, answer.done.finish_reason) == ("Dear Ada, " + "4" * after, "length")
    assert isinstance(answer.done.faults[0].error, EngineError)
    with pytest.raises(EngineError):
        ask(stack(Template(TEXT), engine=Writer(tuple(WHOLE), fails=frozenset({1}))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "no slot"},
        {"text": "{{a}}{{b}}"},
        {"text": "{{a}}", "slots": {"b": Slot()}},
        {"text": "{{a}}", "slots": {"a": 1}},
    ],
)
def test_templates_that_cannot_be(wrong) -> None:
    with pytest.raises(InvalidValue):
        Template(**wrong)
    for bad in ({"choice": ("a",), "regex": "a"}, {"tokens": 0}):
        with pytest.raises(InvalidValue):
            Slot(**bad)
