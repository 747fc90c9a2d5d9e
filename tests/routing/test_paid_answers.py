"""A paid answer survives whatever a judge, a signal, `spent`, `observe` or `compare` does; each attempt is booked once."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import EngineError, Request, Usage, clock, complete, stack
from labkit.routing import (
    AllOf,
    CalibratedJudge,
    Calibration,
    Cascade,
    Copies,
    Fallback,
    Finished,
    Hedge,
    Route,
    RoutingContext,
    RoutingPolicy,
    Score,
    SelfConsistency,
    Shadow,
    Split,
    Valid,
)
from tests.routing.answers import per_token

Q = Request("q", tenant="t", user="u")
TWO = RoutingPolicy("1", ("small", "large"), (0.5,))
run = clock.run_virtual


def broken(*_):
    raise ZeroDivisionError("oh")


async def broken_later(*_):
    raise KeyError("oh")


async def cancelled_by_itself(*_):
    raise asyncio.CancelledError


NONSENSE = [math.nan, "0.9", None, 2.0, -1, 0.9, True, [], Decimal(1), object()]
FAILING = [
    broken,
    *[lambda *_, value=value: value for value in NONSENSE],
    lambda *_: Score(math.nan, "x"),
    lambda *_: Score("0.9", "x"),
    lambda *_: Score(1.5, "x"),
    lambda *_: Score(0.9, "x", cost=0.1),
]


def pair():
    return {"small": ScriptedEngine(("s",)), "large": ScriptedEngine(("l",))}


@pytest.mark.parametrize("judge", [*FAILING, broken_later, cancelled_by_itself])
def test_a_judge_that_fails_or_says_nonsense_sends_the_request_up_and_the_answer_tells(judge):
    for around in (judge, AllOf(judge), CalibratedJudge(judge, Calibration("isotonic", (0.0, 1.0), (0.9, 1.0)))):
        answer = run(complete(stack(Cascade(TWO, around), engine=pair()), Q))
        assert answer.text == "l"
        assert [fault.where for fault in answer.done.faults] == ["judge"]


@pytest.mark.parametrize("signal", FAILING)
def test_a_signal_that_fails_or_says_nonsense_sends_the_request_to_the_large_model_and_the_answer_tells(signal):
    answer = run(complete(stack(Route(TWO, signal), engine=pair()), Q))
    assert answer.text == "l"
    assert [fault.where for fault in answer.done.faults] == ["signal"]


@pytest.mark.parametrize("validator", [broken, *[lambda *_, value=value: value for value in (None, 0, True, [])]])
def test_a_validator_that_fails_or_says_nonsense_lets_no_answer_through(validator):
    assert run(complete(stack(Cascade(TWO, Valid((Finished(), validator))), engine=pair()), Q)).text == "l"


@pytest.mark.parametrize("spent", [broken, *[lambda _, v=v: v for v in (math.nan, "9", None, Decimal("NaN"), math.inf, [])]])
@pytest.mark.parametrize("lever", [Route, Cascade])
def test_a_purse_that_cannot_be_read_keeps_nobody_from_an_answer(lever, spent):
    policy = RoutingPolicy("1", ("small", "large"), (0.5,), budgets={"t": Decimal(1)})
    handler = stack(lever(policy, lambda *_: Score(0, "x"), context=RoutingContext(spent=spent)), engine=pair())
    answer = run(complete(handler, Q))
    assert answer.text == "l", "as if there were no budget"
    assert [fault.where for fault in answer.done.faults] == ["spent"]


@pytest.mark.parametrize("lever", [Route, Cascade])
@pytest.mark.parametrize("value", [0, 1])
def test_an_onlooker_that_fails_costs_no_answer(lever, value):
    handler = stack(lever(TWO, lambda *_: Score(value, "x"), context=RoutingContext(observe=broken)), engine=pair())
    answer = run(complete(handler, Q))
    assert answer.text == ("s" if value else "l")
    assert [(fault.where, type(fault.error)) for fault in answer.done.faults] == [("observe", ZeroDivisionError)]


def test_what_went_wrong_beside_an_answer_that_was_thrown_away_is_told_on_the_one_delivered():
    """The small answer's ledger could not be written: nobody sees the small answer, but the books lack its row."""

    class Full(Ledger):
        def extend(self, rows):
            raise LedgerFull("disk full")

    from labkit.ledger import LedgerError as LedgerFull

    with Full(":memory:") as ledger:
        models = {"small": stack(Booked(ledger), engine=ScriptedEngine(("s",))), "large": ScriptedEngine(("l",))}
        answer = run(complete(stack(Cascade(TWO, lambda *_: Score(0, "x")), engine=models), Q))
    assert answer.text == "l"
    assert [fault.where for fault in answer.done.faults] == ["booked"]


def test_samples_are_in_the_books_wherever_the_ledger_stands():
    def engines():
        return ScriptedEngine(("s",)), ScriptedEngine(("l",))

    prices = {"small": per_token("small", "0.1"), "large": per_token("large", "1")}
    found = []
    for place in ("above", "beneath", "the sampler's own"):
        small, large = engines()
        with Ledger(":memory:") as ledger:
            books = Booked(ledger, prices)
            lift = (lambda engine: stack(books, engine=engine)) if place != "above" else (lambda engine: engine)  # noqa: B023
            sampler = lift(small) if place == "the sampler's own" else small
            cascade = Cascade(TWO, SelfConsistency(sampler, 3))
            placed = stack(cascade, engine={"small": lift(small), "large": lift(large)})
            answer = run(complete(books(placed) if place == "above" else placed, Q))
            rows = ledger.rows()
            assert len(rows) == len(small.asked) == 4
            assert sum((row.usage for row in rows), Usage()) == small.used + large.used
            found.append((answer.text, sorted(row.cost for row in rows)))
    assert found == [("s", [Decimal("0.1")] * 4)] * 3


JUDGES = {
    "sure": lambda sampler: lambda *_: Score(1, "x"),
    "doubtful": lambda sampler: lambda *_: Score(0, "x"),
    "samples": lambda sampler: SelfConsistency(sampler, 3),
    "fails": lambda sampler: broken,
}


def choosers(draw, sampler, copies):
    kind = draw(st.sampled_from(["route", "cascade", "fallback", "hedge", "split", "shadow"]))
    if kind == "route":
        value = draw(st.sampled_from([0, 1]))
        return Route(TWO, lambda _: Score(value, "x")), ("small", "large")
    if kind == "cascade":
        judge = JUDGES[draw(st.sampled_from(sorted(JUDGES)))](sampler)
        return Cascade(TWO, judge, context=RoutingContext(first_token_s=7)), ("small", "large")
    if kind == "fallback":
        return Fallback(("small", "large"), first_token_s=4), ("small", "large")
    if kind == "hedge":
        return Hedge(draw(st.sampled_from([0, 1.5, 5]))), ("small", "large")
    if kind == "split":
        return Split("x"), ("A", "B")
    return Shadow(1.0, copies=copies), ("live", "tried")


@st.composite
def worlds(draw):
    """A chooser over a chooser and an engine, when the caller leaves, and after how many events it stops listening."""
    engines = []

    def engine():
        engines.append(
            ScriptedEngine(
                tuple("abc"[: draw(st.integers(1, 3))]),
                gap_s=draw(st.sampled_from([0.5, 1.0, 3.0])),
                fail_at=draw(st.sampled_from([None, None, 0, 1])),
                without_done=draw(st.sampled_from([False, False, False, True])),
                error=draw(st.sampled_from([EngineError("down"), KeyError("x")])),
            )
        )
        return engines[-1]

    copies = Copies()
    inner, names = choosers(draw, engine(), copies)
    inside = stack(inner, engine={name: engine() for name in names})
    outer, names = choosers(draw, engine(), copies)
    models = dict(zip(names, draw(st.permutations([inside, engine()])), strict=True))
    leaves = draw(st.sampled_from([None, 0, 0.25, 0.5, 1, 1.5, 2, 2.75, 4, 7]))
    return engines, stack(outer, engine=models), copies, leaves, draw(st.sampled_from([None, None, 1, 2, 3]))


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_the_books_hold_what_the_engines_counted_whoever_leaves_and_whenever(world):
    """Answers thrown away, losers of hedges, shadows and samples are booked once each, and every stream is closed."""
    engines, handler, copies, leaves, enough = world

    async def listen(handler):
        async with aclosing(handler(Q)) as events:
            heard = 0
            async for _ in events:
                heard += 1
                if heard == enough:
                    break

    async def main(handler):
        task = asyncio.create_task(listen(handler))
        if leaves is not None:
            await asyncio.sleep(leaves)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await copies.finished()

    with Ledger(":memory:") as ledger:
        run(main(stack(Booked(ledger), engine=handler)))
        rows = ledger.rows()
    assert sum((row.usage for row in rows if row.usage is not None), Usage()) == sum(
        (engine.used for engine in engines), Usage()
    )
    assert len(rows) == sum(len(engine.asked) for engine in engines)
    assert all(engine.closed == len(engine.asked) for engine in engines)


@given(st.floats(0, 12), st.sampled_from([Hedge(1), Shadow(1.0)]))
@settings(max_examples=40, deadline=None)
def test_a_loop_that_closes_takes_hedges_and_shadows_with_it(leaves, chooser):
    engines = {"a": ScriptedEngine(gap_s=1), "b": ScriptedEngine(gap_s=2)}

    async def main(handler):
        task = asyncio.create_task(complete(handler, Q))
        await asyncio.sleep(leaves)
        return task  # whatever is still under way is cancelled by the loop's end

    with Ledger(":memory:") as ledger:
        run(main(stack(Booked(ledger), chooser, engine=engines)))
        rows = ledger.rows()
    assert sum((row.usage for row in rows if row.usage is not None), Usage()) == sum(
        (engine.used for engine in engines.values()), Usage()
    )
    assert all(engine.closed == len(engine.asked) for engine in engines.values())


def test_a_shadow_whose_comparison_fails_leaves_answer_and_books_as_they_are(caplog):
    copies = Copies()

    async def main(handler):
        answer = await complete(handler, Q)
        await copies.finished()
        return answer

    with Ledger(":memory:") as ledger:
        levers = Booked(ledger), Shadow(1.0, compare=broken, copies=copies)
        answer = run(main(stack(*levers, engine={"live": ScriptedEngine(("x",)), "tried": ScriptedEngine()})))
        assert [row.outcome for row in ledger.rows()] == ["completed", "completed"]
    assert (answer.text, answer.done.faults) == ("x", ())
    assert "ZeroDivisionError" in caplog.text
