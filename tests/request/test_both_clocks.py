"""One stack of levers on the wall clock and on the virtual one: the same events in the same order, the same books."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    InvalidRequest,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)
from request.stacks import ScriptedEngine, Shouting

BOTH = pytest.mark.parametrize("run", [asyncio.run, clock.run_virtual], ids=["wall", "virtual"])
ANSWER = ("ABCD", ("shouting",), Decimal("0.07"), Usage(3, 4))


PRICES = {"scripted": self_defined("scripted", "10000", "10000")}


def whole_stack(engine, ledger):
    return stack(Shouting(), Booked(ledger, PRICES), engine=engine)


@BOTH
def test_a_stack_gives_the_same_answer_on_both_clocks(run):
    engine = ScriptedEngine()
    with Ledger(":memory:") as ledger:

        async def main():
            return await complete(whole_stack(engine, ledger), within(Request("hi", feature="f"), 30))

        completion = run(main())
        (row,) = ledger.rows()
    done = completion.done
    assert (completion.text, done.route, done.cost, done.usage) == ANSWER
    assert engine.journal == ["started", "sent a", "sent b", "sent c", "sent d", "finished", "closed"]
    assert (row.outcome, row.feature, row.cost, row.usage) == ("completed", "f", Decimal("0.07"), Usage(3, 4))
    assert row.sent < row.first_token < row.last_token <= row.done
    assert completion.chunks == tuple(sorted(completion.chunks, key=lambda chunk: chunk.at))


@BOTH
def test_concurrent_streams_interleave_alike_on_both_clocks(run):
    """Gaps are 50 ms multiples apart, so the order is the scripts', not the scheduler's."""

    async def main():
        order = []

        async def follow(name, offset):
            await asyncio.sleep(offset)
            async with aclosing(whole_stack(ScriptedEngine(gap=0.2), ledger)(Request("hi"))) as events:
                async for event in events:  # one by one: the other stream appends in between
                    order.append((name, event.text if isinstance(event, Chunk) else "done"))  # noqa: PERF401

        with Ledger(":memory:") as ledger:
            await asyncio.gather(follow("x", 0.0), follow("y", 0.1))
        return order

    order = run(main())
    words = ["A", "B", "C", "D"]
    alternating = [(name, word) for word in words for name in "xy"]
    alternating.insert(7, ("x", "done"))
    assert order == [*alternating, ("y", "done")]


@BOTH
def test_cancelling_through_five_layers_closes_the_engine_exactly_once(run):
    engine = ScriptedEngine()

    async def main():
        with Ledger(":memory:") as ledger:
            levers = (Shouting(), Shouting(), Shouting(), Booked(ledger), Shouting())
            handler = stack(*levers, engine=engine)
            async with aclosing(handler(within(Request("hi"), 30))) as events:
                async for event in events:
                    assert event.text == "A"
                    break
            (row,) = ledger.rows()
            return row

    row = run(main())
    assert engine.journal == ["started", "sent a", "closed"]
    assert (row.outcome, row.output_tokens) == ("cancelled", 1)


@BOTH
def test_a_cancelled_task_closes_the_engine_before_it_ends(run):
    engine = ScriptedEngine(gap=0.2)

    async def main():
        task = asyncio.create_task(complete(stack(*[Shouting()] * 4, engine=engine), Request("hi")))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return list(engine.journal)

    assert run(main()) == ["started", "sent a", "closed"]


@BOTH
def test_a_deadline_fires_while_waiting_keeps_what_came_and_closes_the_engine(run):
    engine = ScriptedEngine(gap=0.4)

    async def main():
        with Ledger(":memory:") as ledger:
            started = clock.now()
            with pytest.raises(DeadlineExceeded) as caught:
                await complete(whole_stack(engine, ledger), within(Request("hi"), 1.0))
            (row,) = ledger.rows()
            return caught.value, clock.now() - started, row

    error, waited, row = run(main())
    assert error.partial == "AB"
    assert waited >= 1.0 - 0.002  # a wall-clock timer may fire a clock tick early, never later than its cause
    assert engine.journal == ["started", "sent a", "sent b", "closed"]
    assert row.outcome == "cancelled"


@BOTH
def test_a_deadline_does_not_fire_while_the_consumer_is_busy_but_at_the_next_event(run):
    engine = ScriptedEngine()

    async def main():
        seen = []
        with pytest.raises(DeadlineExceeded) as caught:  # noqa: PT012 - the consumer's work is part of what is tested
            async with aclosing(stack(Shouting(), engine=engine)(within(Request("hi"), 0.3))) as events:
                async for event in events:
                    seen.append(event.text)
                    await asyncio.sleep(0.5)
                    seen.append("the consumer was not interrupted")
        return seen, caught.value.partial

    assert run(main()) == (["A", "the consumer was not interrupted"], "A")
    assert engine.journal == ["started", "sent a", "closed"]


@BOTH
def test_a_deadline_already_past_never_starts_the_engine(run):
    engine = ScriptedEngine()

    async def main():
        with pytest.raises(DeadlineExceeded):
            await complete(stack(Shouting(), engine=engine), replace(Request("hi"), deadline=clock.now() - 1))

    run(main())
    assert engine.journal == []


@BOTH
def test_a_deadline_only_ever_tightens(run):
    async def main():
        early = within(Request("hi"), 10)
        assert within(early, 100).deadline == early.deadline
        assert within(early, 1).deadline < early.deadline
        for seconds in (0, -1, float("nan")):
            with pytest.raises(InvalidRequest):
                within(early, seconds)

    run(main())


@BOTH
def test_an_engines_own_error_passes_a_deadline_as_itself(run):
    async def failing(request):
        yield Chunk("a", clock.now())
        raise ConnectionError("reset")

    async def main():
        with pytest.raises(ConnectionError, match="reset"):
            await complete(stack(Shouting(), engine=failing), within(Request("hi"), 30))

    run(main())


@BOTH
@pytest.mark.parametrize(
    ("fault", "message"), [("no done", "without a Done"), ("two dones", "after its Done"), ("tail", "after")]
)
def test_complete_refuses_a_malformed_stream_and_closes_it(run, fault, message):
    closed = []

    async def malformed(request):
        try:
            yield Chunk("a", clock.now())
            done = Done(Usage(1, 1), Timing(0.0))
            if fault != "no done":
                yield done
                yield done if fault == "two dones" else Chunk("late", clock.now())
                pytest.fail("complete listened on after the fault")
        finally:
            closed.append(True)

    with pytest.raises(StreamIncomplete, match=message):
        run(complete(malformed, Request("hi")))
    assert closed == [True]
