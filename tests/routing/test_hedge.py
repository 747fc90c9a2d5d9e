from __future__ import annotations

import asyncio

import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    EngineError,
    InvalidRequest,
    InvalidValue,
    Request,
    StreamIncomplete,
    clock,
    complete,
    stack,
)
from labkit.routing import AllDown, Hedge

Q = Request("q")


def hedge(models, after_s):
    return stack(Hedge(after_s), engine=models)


def asks(models, after_s):
    async def main():
        return await complete(hedge(models, after_s), Q)

    return clock.run_virtual(main())


def test_a_first_model_that_begins_in_time_is_the_only_one_asked():
    other = ScriptedEngine()
    answer = asks({"a": ScriptedEngine(("x", "y"), gap_s=1), "b": other}, after_s=1.5)
    assert (answer.text, answer.done.route) == ("xy", ("hedge:a",))
    assert not other.asked


def test_when_the_first_is_slow_the_second_starts_and_the_first_to_speak_wins():
    slow = ScriptedEngine(("x",), gap_s=100)
    answer = asks({"a": slow, "b": ScriptedEngine(("y", "z"), gap_s=1)}, after_s=2)
    assert (answer.text, answer.done.route) == ("yz", ("hedge:a|b>b",))
    assert (answer.done.timing.ttft, answer.done.timing.e2e) == (3, 4), "2 s of waiting count"
    assert (slow.finished, slow.closed) == (0, 1)


def test_a_first_model_that_speaks_after_all_wins_and_the_second_is_stopped():
    second = ScriptedEngine(("y",), gap_s=100)
    answer = asks({"a": ScriptedEngine(("x",), gap_s=3), "b": second}, after_s=2)
    assert (answer.text, answer.done.route) == ("x", ("hedge:a|b>a",))
    assert (len(second.asked), second.closed) == (1, 1)


def test_a_tie_goes_to_the_one_that_was_asked_first():
    assert asks({"a": ScriptedEngine(("x",), gap_s=3), "b": ScriptedEngine(("y",), gap_s=3)}, after_s=0).text == "x"


def test_a_failure_brings_the_next_model_forward():
    answer = asks({"a": ScriptedEngine(fail_at=0, gap_s=1), "b": ScriptedEngine(("y",), gap_s=1)}, after_s=50)
    assert (answer.text, answer.done.timing.e2e) == ("y", 2)


def test_a_failure_of_one_under_way_waits_for_the_other():
    answer = asks({"a": ScriptedEngine(("x",), gap_s=9), "b": ScriptedEngine(fail_at=0, gap_s=1)}, after_s=1)
    assert (answer.text, answer.done.timing.e2e) == ("x", 9)


def test_when_all_fail_each_error_is_told():
    with pytest.raises(AllDown, match=r"a: .*fell over; b: .*out of memory"):
        asks({"a": ScriptedEngine(fail_at=0), "b": ScriptedEngine(fail_at=0, error=EngineError("out of memory"))}, after_s=1)


def test_after_the_first_token_the_winners_error_is_raised():
    with pytest.raises(EngineError, match="fell over"):
        asks({"a": ScriptedEngine(("x", "y"), fail_at=1), "b": ScriptedEngine()}, after_s=5)


def test_errors_that_are_not_the_engines_are_raised_at_once():
    with pytest.raises(InvalidRequest, match="nonsense"):
        asks({"a": ScriptedEngine(fail_at=0, error=InvalidRequest("nonsense")), "b": ScriptedEngine()}, after_s=5)


def test_a_stream_that_breaks_off_is_not_an_answer():
    async def half(request):
        yield Chunk("h", clock.now())

    with pytest.raises(StreamIncomplete):
        asks({"a": half, "b": ScriptedEngine()}, after_s=5)


def test_the_loser_is_in_the_books_as_cancelled():
    with Ledger(":memory:") as ledger:
        models = {"a": ScriptedEngine(("x",), gap_s=100), "b": ScriptedEngine(("y",))}
        clock.run_virtual(complete(Booked(ledger)(hedge(models, after_s=1)), Q))
        assert sorted((row.request_model, row.outcome) for row in ledger.rows()) == [("a", "cancelled"), ("b", "completed")]


def test_the_loser_is_stopped_when_the_winner_begins_not_when_it_ends():
    slow = ScriptedEngine(gap_s=100)

    async def main():
        async for _ in hedge({"a": slow, "b": ScriptedEngine(("x", "y", "z"))}, 0)(Q):
            await asyncio.sleep(0.1)
            assert slow.closed == 1

    clock.run_virtual(main())


def test_closing_the_stream_closes_the_engine_before_it_returns():
    engine = ScriptedEngine(gap_s=1)

    async def main():
        events = hedge({"a": engine, "b": ScriptedEngine()}, 5)(Q)
        await anext(events)
        await events.aclose()
        assert engine.closed == 1

    clock.run_virtual(main())


def test_a_caller_who_leaves_stops_all_of_them():
    models = {name: ScriptedEngine(gap_s=100) for name in "abc"}

    async def main():
        task = asyncio.create_task(complete(hedge(models, 1), Q))
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run_virtual(main())
    assert [(len(m.asked), m.closed) for m in models.values()] == [(1, 1), (1, 1), (0, 0)]


@pytest.mark.parametrize(("names", "after"), [("a", 1), ("ab", -1), ("ab", float("nan")), ("ab", float("inf"))])
def test_a_hedge_that_hedges_nothing_is_refused(names, after):
    with pytest.raises(InvalidValue):
        hedge({name: ScriptedEngine() for name in names}, after)
