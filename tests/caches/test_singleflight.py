from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal

import pytest

from labkit.caches import single_flight
from labkit.ledger import Ledger, booked, tokens
from labkit.request import Chunk, DeadlineExceeded, EngineError, Request, clock, complete, within
from tests.caches.engine import Scripted

ASKED = Request("q", model="m")


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 1000))


async def later(seconds, awaitable):
    await asyncio.sleep(seconds)
    return await awaitable


def test_all_who_ask_at_once_hear_one_stream_from_its_first_chunk():
    engine = Scripted()
    handler = single_flight(engine)

    async def main():
        return await asyncio.gather(*(later(at, complete(handler, ASKED)) for at in (0, 0, 1.5, 2.9)))

    answers = run(main())
    assert engine.started == engine.closed == 1
    assert [a.text for a in answers] == ["a1b1c1"] * 4
    assert [round(a.chunks[0].at, 6) for a in answers] == [1, 1, 1.5, 2.9], "the first chunk comes as soon as it can"
    assert [a.done.usage.input_tokens for a in answers] == [10, 0, 0, 0]
    assert [a.done.cost for a in answers] == [None, 0, 0, 0]
    assert answers[3].done.timing.e2e == pytest.approx(0.1)
    assert "single-flight" in answers[1].done.route
    assert "single-flight" not in answers[0].done.route


def test_different_questions_tenants_and_samples_fly_alone():
    engine = Scripted()
    handler = single_flight(engine)
    alone = [ASKED, Request("q", model="m", tenant="t"), Request("q", model="m", permissions={"p"}), Request("r", model="m")]
    sampled = [Request("q", model="m", temperature=1.0)] * 2

    async def main():
        return await asyncio.gather(*(complete(handler, request) for request in alone + sampled))

    assert len({answer.text for answer in run(main())}) == 6
    assert engine.started == 6


def test_the_flight_goes_on_when_the_one_who_started_it_leaves():
    engine = Scripted()
    handler = single_flight(engine)

    async def main():
        leader = asyncio.create_task(complete(handler, ASKED))
        follower = asyncio.create_task(complete(handler, ASKED))
        await asyncio.sleep(1.5)
        leader.cancel()
        answer = await follower
        assert leader.cancelled()
        return answer

    answer = run(main())
    assert answer.text == "a1b1c1"
    assert (engine.started, engine.finished) == (1, 1)
    # The leader's books took 10 in and 1 out with them; the follower inherits the rest, so the sum is what was used.
    assert (answer.done.usage.input_tokens, answer.done.usage.output_tokens) == (0, 2)


@pytest.mark.parametrize("running", [True, False], ids=["running counts", "counted chunks"])
@pytest.mark.parametrize("leave_at", [0.5, 1.5, 2.5])
def test_the_ledger_counts_the_output_of_a_shared_stream_once_whoever_leaves(leave_at, running):
    engine = Scripted(running_usage=running)

    async def main(ledger):
        handler = booked(single_flight(engine), ledger, provider="lab", price=lambda _, usage: Decimal(usage.output_tokens))
        tasks = [asyncio.create_task(complete(handler, ASKED)) for _ in range(3)]
        await asyncio.sleep(leave_at)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        assert len(ledger) == 3
        kinds = tokens(ledger)
        assert kinds["visible_output"] == 3
        assert kinds["fresh_input"] + kinds["cached_input"] == 10


def test_the_engine_stops_when_the_last_listener_has_left_and_the_next_one_starts_anew():
    engine = Scripted()
    handler = single_flight(engine)

    async def main():
        before = asyncio.all_tasks()
        tasks = [asyncio.create_task(complete(handler, ASKED)) for _ in range(2)]
        await asyncio.sleep(1.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (engine.closed, engine.finished) == (1, 0)
        assert asyncio.all_tasks() == before, "no task is left behind"
        return await complete(handler, ASKED)

    assert run(main()).text == "a2b2c2"


def test_closing_a_stream_midway_is_leaving():
    engine = Scripted()
    handler = single_flight(engine)

    async def main():
        async with aclosing(handler(ASKED)) as events:
            assert isinstance(await anext(events), Chunk)
        assert engine.closed == 1

    run(main())


def test_an_error_reaches_every_listener_and_is_not_remembered():
    engine = Scripted(fail_after=1)
    handler = single_flight(engine)

    async def main():
        failures = await asyncio.gather(*(complete(handler, ASKED) for _ in range(3)), return_exceptions=True)
        engine.fail_after = None
        return failures, await complete(handler, ASKED)

    failures, after = run(main())
    assert [type(f) for f in failures] == [ConnectionError] * 3
    assert engine.started == 2
    assert after.text == "a2b2c2"


def test_each_caller_keeps_its_own_deadline():
    engine = Scripted()
    handler = single_flight(engine)

    async def main():
        hurried = asyncio.create_task(complete(handler, within(ASKED, 1.5)))
        patient = asyncio.create_task(complete(handler, within(ASKED, 10)))
        with pytest.raises(DeadlineExceeded):
            await hurried
        assert clock.now() == pytest.approx(1.5)
        return await patient

    assert run(main()).text == "a1b1c1"
    assert engine.started == 1


def test_a_stream_without_an_end_is_as_incomplete_for_a_follower_as_for_the_leader():
    handler = single_flight(Scripted(without_done=True))

    async def main():
        return await asyncio.gather(*(complete(handler, ASKED) for _ in range(2)), return_exceptions=True)

    assert all(isinstance(failure, EngineError) for failure in run(main()))
