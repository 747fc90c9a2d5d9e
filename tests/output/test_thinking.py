"""Budgets of thought, and two requests where the form comes second."""

from __future__ import annotations

import pytest

from labkit.ledger import Booked, Ledger
from labkit.output import Structured, ThinkFirst, ThinkingBudget
from labkit.request import EngineError, InvalidValue, Request, complete, run_virtual, stack

from .writer import Writer

FORM = Structured(choice=("a b c ", "z"))


def ask(handler, **more):
    return run_virtual(complete(handler, Request("Why?", **{"max_tokens": 50, "idempotency_key": "k", **more})))


def test_a_budget_is_sent_and_has_a_hard_end() -> None:
    engine = Writer(("a",))
    done = ask(stack(ThinkingBudget(20, answer=10), engine=engine)).done
    ask(stack(ThinkingBudget(20, answer=100), engine=engine))
    ask(stack(ThinkingBudget(0), engine=engine))
    assert [asked.max_tokens for asked in engine.asked] == [32, 50, 50]
    assert [asked.extra for asked in engine.asked] == [{"thinking_token_budget": n} for n in (20, 20, 0)]
    assert done.route == ("output:thinking=20",)
    for wrong in ({"tokens": -1}, {"tokens": 1.5}, {"tokens": 3, "answer": 0}):
        with pytest.raises(InvalidValue):
            ThinkingBudget(**wrong)


def test_the_free_answer_is_reasoning_and_the_form_is_the_answer() -> None:
    engine = Writer(("a ", "b ", "c "))
    with Ledger(":memory:") as ledger:
        answer = ask(stack(Booked(ledger), ThinkFirst(FORM, then="Now."), engine=engine))
        rows = ledger.rows()
    assert (answer.reasoning, answer.text) == ("a b c ", "a b c ")
    assert answer.done.faults == ()
    assert [m.content for m in engine.asked[1].messages] == ["Why?", "a b c ", "Now."]
    assert "structured_outputs" not in engine.asked[0].extra
    assert engine.asked[1].extra["structured_outputs"] == {"choice": ["a b c ", "z"]}
    assert [row.usage for row in rows] == engine.told
    assert answer.done.usage == engine.told[0] + engine.told[1]
    assert [row.idempotency_key for row in rows] == ["k~free", "k"]
    assert answer.done.route == ("output:think-first", "output:structured")


@pytest.mark.parametrize("after", [0, 1])
def test_the_free_answer_is_never_lost(after) -> None:
    answer = ask(stack(ThinkFirst(FORM), engine=Writer(("a ", "b ", "c "), fails=frozenset({2}), after=after)))
    assert answer.reasoning == "a b c "
    assert (answer.text, answer.done.finish_reason) == (("a ", "length") if after else ("a b c ", "stop"))
    assert isinstance(answer.done.faults[0].error, EngineError)


def test_a_free_answer_that_fails_fails() -> None:
    with pytest.raises(EngineError):
        ask(stack(ThinkFirst(FORM), engine=Writer(("a",), fails=frozenset({1}))))
    for wrong in ({"form": "x"}, {"form": FORM, "then": ""}):
        with pytest.raises(InvalidValue):
            ThinkFirst(**wrong)
