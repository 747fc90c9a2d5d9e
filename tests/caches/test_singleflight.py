from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from labkit.caches import SingleFlight
from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger, spend, tokens
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidValue,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)
from tests.caches.engine import numbered

ASKED = Request("q", model="m")


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 1000))


async def later(seconds, awaitable):
    await asyncio.sleep(seconds)
    return await awaitable


def test_all_who_ask_at_once_hear_one_stream_from_its_first_chunk():
    engine = numbered()
    handler = SingleFlight()(engine)

    async def main():
        return await asyncio.gather(*(later(at, complete(handler, ASKED)) for at in (0, 0, 1.5, 2.9)))

    answers = run(main())
    assert len(engine.asked) == engine.closed == 1
    assert [a.text for a in answers] == ["a1b1c1"] * 4
    assert [round(a.chunks[0].at, 6) for a in answers] == [1, 1, 1.5, 2.9], "the first chunk comes as soon as it can"
    assert [a.done.usage.input_tokens for a in answers] == [10, 0, 0, 0]
    assert [a.done.cost for a in answers] == [None, 0, 0, 0]
    assert answers[3].done.timing.e2e == pytest.approx(0.1)
    assert [a.done.route for a in answers] == [(), *[("single-flight",)] * 3]


def test_different_questions_tenants_and_samples_fly_alone():
    engine = numbered()
    handler = SingleFlight()(engine)
    alone = [ASKED, Request("q", model="m", tenant="t"), Request("q", model="m", permissions={"p"}), Request("r", model="m")]
    sampled = [Request("q", model="m", temperature=1.0)] * 2

    async def main():
        return await asyncio.gather(*(complete(handler, request) for request in alone + sampled))

    assert len({answer.text for answer in run(main())}) == 6
    assert len(engine.asked) == 6


def test_the_flight_goes_on_when_the_one_who_started_it_leaves():
    engine = numbered()
    handler = SingleFlight()(engine)

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
    assert (len(engine.asked), engine.finished) == (1, 1)
    assert (answer.done.usage.input_tokens, answer.done.cost) == (0, 0), "the one who started it pays"


@pytest.mark.parametrize("books", ["above", "beneath", "both"])
@pytest.mark.parametrize("running", [True, False], ids=["running counts", "counted chunks"])
@pytest.mark.parametrize("leaves", [(), (0,), (1,), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("leave_at", [0.5, 1.5, 2.5])
def test_the_ledger_counts_a_shared_stream_once_whoever_leaves(leave_at, leaves, running, books):
    engine = numbered(running_usage=running)

    async def main(ledger):
        booked = Booked(ledger, {"*": self_defined("any", "0", "1000000")})
        levers = {"above": (booked, SingleFlight()), "beneath": (SingleFlight(), booked)}
        handler = stack(*levers.get(books, (booked, SingleFlight(), booked)), engine=engine)
        tasks = [asyncio.create_task(complete(handler, Request("q", model="m", user=str(i)))) for i in range(3)]
        await asyncio.sleep(leave_at)
        for i in leaves:
            tasks[i].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        paid = [row for row in ledger.rows() if not row.route and row.outcome == "completed"]
        assert len(ledger) == 3
        assert tokens(ledger)["visible_output"] == engine.used.output_tokens
        assert spend(ledger)["labkit.cost"].sum() == engine.used.output_tokens or not running
        if len(leaves) < 3:
            assert [row.user for row in paid] == ["0"], "whoever started it, gone or not"
            assert tokens(ledger).sum() == 13


def test_the_engine_stops_when_the_last_listener_has_left_and_the_next_one_starts_anew():
    engine = numbered()
    handler = SingleFlight()(engine)

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
    engine = numbered()
    handler = SingleFlight()(engine)

    async def main():
        async with aclosing(handler(ASKED)) as events:
            assert isinstance(await anext(events), Chunk)
        assert engine.closed == 1

    run(main())


def test_an_error_reaches_every_listener_and_is_not_remembered():
    engine = numbered(fail_at=1)
    handler = SingleFlight()(engine)

    async def main():
        failures = await asyncio.gather(*(complete(handler, ASKED) for _ in range(3)), return_exceptions=True)
        engine.fail_at = None
        return failures, await complete(handler, ASKED)

    failures, after = run(main())
    assert [type(f) for f in failures] == [EngineError] * 3
    assert len(engine.asked) == 2
    assert after.text == "a2b2c2"


def test_each_caller_keeps_its_own_deadline():
    engine = numbered()
    handler = SingleFlight()(engine)

    async def main():
        hurried = asyncio.create_task(complete(handler, within(ASKED, 1.5)))
        patient = asyncio.create_task(complete(handler, within(ASKED, 10)))
        with pytest.raises(DeadlineExceeded):
            await hurried
        assert clock.now() == pytest.approx(1.5)
        return await patient

    assert run(main()).text == "a1b1c1"
    assert len(engine.asked) == 1


def test_a_stream_without_an_end_is_as_incomplete_for_a_follower_as_for_the_leader():
    handler = SingleFlight()(numbered(without_done=True))

    async def main():
        return await asyncio.gather(*(complete(handler, ASKED) for _ in range(2)), return_exceptions=True)

    assert all(isinstance(failure, EngineError) for failure in run(main()))


def test_a_key_that_fails_costs_the_sharing_and_no_answer():
    def key(request):
        raise ZeroDivisionError

    for failing in (key, lambda request: [request]):
        engine = numbered()
        handler = SingleFlight(failing)(engine)

        async def main(handler=handler):
            return await asyncio.gather(*(complete(handler, ASKED) for _ in range(2)))

        answers = run(main())
        assert len(engine.asked) == 2
        assert [[fault.where for fault in answer.done.faults] for answer in answers] == [["single-flight"]] * 2
    with pytest.raises(InvalidValue, match="key is 'q'"):
        SingleFlight("q")


def test_a_hit_that_is_shared_keeps_the_id_of_the_answer_it_repeats():
    async def cached(request):
        await asyncio.sleep(1)
        done = Done(Usage(), Timing(0.0, done=clock.now(), started_unix=0.0), route=("response-cache",), response_id="id@1")
        yield done

    handler = SingleFlight()(cached)

    async def main():
        return await asyncio.gather(*(complete(handler, ASKED) for _ in range(2)))

    assert [answer.done.response_id for answer in run(main())] == ["id@1"] * 2
