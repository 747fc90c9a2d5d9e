"""A cap, what it does with an answer that it cuts, and what the books then hold."""

from __future__ import annotations

from decimal import Decimal

import pytest

from labkit.cost import price_request, self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger, cut, waste
from labkit.output import ANY_FEATURE, Cap, Structured
from labkit.request import (
    Chunk,
    Completion,
    Done,
    EngineError,
    InvalidValue,
    Message,
    Request,
    Timing,
    Usage,
    complete,
    run_virtual,
    stack,
)

from .writer import Writer

WORDS = ("It ", "is ", "red ", "and ", "blue.")
PRICE = self_defined("writer", "1", "5")


def ask(handler, **more) -> Completion:
    return run_virtual(complete(handler, Request("What?", **{"max_tokens": 10, "idempotency_key": "k", **more})))


def booked(lever, engine):
    ledger = Ledger(":memory:")
    return ledger, stack(Booked(ledger, {"*": PRICE}), lever, engine=engine)


def test_an_answer_within_the_cap_is_as_it_was() -> None:
    for on_cut in ("pass", "again", "continue"):
        engine = Writer(WORDS)
        answer = ask(stack(Cap(5, on_cut), engine=engine))
        assert (answer.text, answer.done.finish_reason, answer.done.route) == ("".join(WORDS), "stop", ("output:cap",))
        assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("on_cut", "text", "reason", "usage", "asked"),
    [
        ("pass", "It is ", "length", Usage(1, 2), 1),
        ("again", "It is red and blue.", "stop", Usage(1, 5), 2),
        ("continue", "It is red and blue.", "stop", Usage(1 + 4, 2 + 3), 2),  # one more message, with two tokens in it
    ],
)
def test_what_becomes_of_a_cut_answer(on_cut, text, reason, usage, asked) -> None:
    engine = Writer(WORDS)
    ledger, handler = booked(Cap(2, on_cut), engine)
    answer = ask(handler)
    assert (answer.text, answer.done.finish_reason, answer.done.usage) == (text, reason, usage)
    assert answer.done.cost == price_request(usage, PRICE).total
    assert len(engine.asked) == len(ledger) == asked
    assert [row.usage for row in ledger.rows()] == engine.told
    assert cut(ledger)["attempts"].tolist() == [1]
    # Asked again, the first answer served nobody; continued, both served.
    assert waste(ledger)["reason"].tolist() == (["superseded"] if on_cut == "again" else [])


def test_a_continued_answer_streams_on_without_a_token_twice() -> None:
    engine = Writer(WORDS)

    async def times():
        return [event async for event in stack(Cap(2, "continue"), engine=engine)(Request("What?", max_tokens=4))]

    *chunks, done = run_virtual(times())
    assert [chunk.text for chunk in chunks] == list(WORDS[:4])
    assert done.finish_reason == "length"  # by the request's own limit: 4 in all
    assert done.usage.output_tokens == 4
    assert engine.asked[1].messages[-1] == Message("assistant", "It is ")
    assert engine.asked[1].max_tokens == 2


def test_what_the_requests_own_limit_cuts_is_not_asked_again() -> None:
    engine = Writer(WORDS)
    answer = ask(stack(Cap(4, "again"), engine=engine), max_tokens=3)
    assert (answer.text, answer.done.finish_reason, len(engine.asked)) == ("It is red ", "length", 1)


@pytest.mark.parametrize("on_cut", ["again", "continue"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_second_request_that_fails_never_costs_the_first_answer(on_cut, after) -> None:
    engine = Writer(WORDS, fails=frozenset({2}), after=after)
    ledger, handler = booked(Cap(2, on_cut), engine)
    answer = ask(handler)
    assert answer.text == "It is " + ("red " if on_cut == "continue" and after else "")
    assert answer.done.finish_reason == "length"
    (fault,) = answer.done.faults
    assert isinstance(fault.error, EngineError)
    assert [row.outcome for row in ledger.rows()] == ["completed", "failed"]
    assert [row.usage for row in ledger.rows()] == engine.told[: 1 + (after > 0)] + [None] * (after == 0)


def test_a_first_request_that_fails_fails() -> None:
    for on_cut in ("pass", "again", "continue"):
        with pytest.raises(EngineError):
            ask(stack(Cap(2, on_cut), engine=Writer(WORDS, fails=frozenset({1}))))


async def thinker(request):
    """Thinks for three tokens and answers in two, as far as its limit goes."""
    said = [("a", ""), ("b", ""), ("c", ""), ("", "yes "), ("", "sir")][: request.max_tokens]
    for thought, text in said:
        yield Chunk(text, 0.0, reasoning=thought)
    usage = Usage(1, len(said), reasoning_tokens=min(3, len(said)))
    yield Done(usage, Timing(0.0, 0.0, 0.0, 0.0), "stop" if request.max_tokens > 4 else "length")


def test_an_answer_cut_in_its_thoughts_is_asked_again_and_one_cut_behind_them_goes_on_from_them() -> None:
    seen = []

    async def engine(request):
        seen.append(request)
        async for event in thinker(request):
            yield event

    answer = ask(stack(Cap(2, "continue"), engine=engine))
    assert (answer.text, answer.done.finish_reason, seen[1].messages) == ("yes sir", "stop", seen[0].messages)
    ask(stack(Cap(4, "continue"), engine=engine))
    assert seen[3].messages[-1].content == "<think>abc</think>yes "


def test_an_answer_under_a_grammar_is_asked_again_whole() -> None:
    engine = Writer(WORDS)
    answer = ask(stack(Structured(regex="It is red and blue\\."), Cap(2, "continue"), engine=engine))
    assert (answer.text, answer.done.faults) == ("It is red and blue.", ())
    assert [len(asked.messages) for asked in engine.asked] == [1, 1]
    below = Writer(WORDS)
    answer = ask(stack(Cap(2, "continue"), Structured(regex=".*"), engine=below))
    assert (answer.text, len(below.asked)) == ("It is ", 1)
    assert "cut after 2 tokens" in str(answer.done.faults[0])


def test_caps_by_feature() -> None:
    cap = Cap({"chat": 3, ANY_FEATURE: 7})
    assert [cap.limit(Request("x", feature=f, max_tokens=m)) for f, m in (("chat", 10), ("chat", 2), ("", 10))] == [3, 2, 7]
    assert Cap({"chat": 3}).limit(Request("x", feature="other", max_tokens=10)) == 10


def test_the_reader_waits_from_the_first_request() -> None:
    engine = ScriptedEngine(tuple("abc"), finish_reason="length")
    answer = ask(stack(Cap(2, "again"), engine=engine))
    assert answer.done.timing.ttft == 5.0  # two seconds for the first two, three for the whole answer


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"tokens": 2.5}, {"tokens": {"a": True}}, {"tokens": 3, "on_cut": "x"}])
def test_caps_that_cannot_be(wrong) -> None:
    with pytest.raises(InvalidValue):
        Cap(**wrong)


def test_costs_add_exactly() -> None:
    ledger, handler = booked(Cap(1, "continue"), Writer(WORDS))
    assert ask(handler).done.cost == sum((row.cost for row in ledger.rows()), Decimal(0))
