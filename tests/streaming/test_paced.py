from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.ledger import Booked, Ledger
from labkit.request import Chunk, Done, InvalidValue, Request, TokenLogprob, Usage, clock, complete, stack
from labkit.streaming import Paced
from labkit.streaming.paced import merged
from tests.streaming.engine import WatchedEngine, run

ASKED = Request("q")


async def read(handler, pause):
    events = []
    async for event in handler(ASKED):
        events.append((clock.now(), event))
        await asyncio.sleep(pause)
    return events


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.sampled_from(["wait", "merge"]), st.sampled_from([0.0, 0.3, 1.0, 2.7]), st.integers(1, 12))
def test_the_reader_gets_the_whole_text_in_order_and_one_done(limit, when_full, pause, count):
    engine = WatchedEngine(tuple(f"{i} " for i in range(count)))
    events = [event for _, event in run(read(Paced(limit, when_full)(engine), pause))]
    assert "".join(event.text for event in events[:-1]) == "".join(engine.pieces)
    assert sum(event.tokens for event in events[:-1]) == count
    assert isinstance(events[-1], Done)
    assert events[-1].usage == Usage(10, count)
    assert engine.closed == 1


def test_waiting_holds_the_engine_back_and_merging_does_not():
    slow = {}
    for when_full in ("wait", "merge"):
        engine = WatchedEngine(tuple("abcdefghij"))
        events = run(read(Paced(2, when_full)(engine), 10.0))
        slow[when_full] = engine.closed_at, [event.text for _, event in events[:-1]]
    assert slow["wait"][1] == list("abcdefghij"), "nothing is merged"
    assert slow["wait"][0] > 60
    assert slow["merge"][0] == pytest.approx(10), "the engine ends as if nobody had been slow"
    assert slow["merge"][1] == ["a", "b", "cdefghij"]


def test_the_engine_is_never_more_than_the_limit_ahead():
    engine = WatchedEngine(tuple("abcdefgh"))

    async def main():
        ahead, taken = [], 0
        async for event in Paced(3, "wait")(engine)(ASKED):
            taken += isinstance(event, Chunk)
            await asyncio.sleep(100)
            ahead.append(engine.produced - taken)
        return ahead

    assert max(run(main())) == 3


def test_an_error_comes_after_what_was_queued_before_it():
    engine = WatchedEngine(tuple("abcd"), fail_at=3, error=ConnectionError("the engine fell over"))
    seen = []

    async def main():
        async for event in Paced(10)(engine)(ASKED):
            seen.append(event.text)
            await asyncio.sleep(10)

    with pytest.raises(ConnectionError):
        run(main())
    assert seen == ["a", "b", "c"]


def test_a_reader_who_leaves_closes_the_engine_and_no_task_is_left():
    engine = WatchedEngine(tuple("abcd"))

    async def main():
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(complete(Paced(2)(engine), ASKED), 1.5)
        assert asyncio.all_tasks() == before

    run(main())
    assert (engine.closed, engine.finished) == (1, 0)


def test_merged_chunks_count_every_token_once():
    first, then = Chunk("a", 1.0, 2, usage=Usage(5, 2)), Chunk("b", 2.0, 3)
    assert merged(first, then) == Chunk("ab", 2.0, 5, usage=Usage(5, 5))
    assert merged(then, first).usage == Usage(5, 2), "an engine's own count is the truth"
    assert merged(then, then).usage is None
    thought = Chunk("", 3.0, 2, "hm", (TokenLogprob("hm", -0.5),))
    assert merged(first, thought) == Chunk("a", 3.0, 4, "hm", thought.logprobs, Usage(5, 4, reasoning_tokens=2))


@pytest.mark.parametrize(
    ("limit", "when_full"), [(0, "wait"), (1, "drop"), (float("nan"), "wait"), (1.5, "wait"), (True, "merge")]
)
def test_a_queue_that_cannot_work_is_refused(limit, when_full):
    with pytest.raises(InvalidValue):
        Paced(limit, when_full)


def test_a_reader_who_leaves_is_in_the_books_with_what_the_engine_had_counted():
    engine = WatchedEngine(tuple("abcd"))

    async def main(ledger):
        handler = stack(Booked(ledger, provider="lab"), Paced(9), engine=engine)
        async with aclosing(handler(ASKED)) as events:
            async for _ in events:
                await asyncio.sleep(1.5)  # the second chunk has come meanwhile
                break

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        (row,) = ledger.rows()
    assert (row.outcome, row.usage) == ("cancelled", Usage(10, 2)) == ("cancelled", engine.used)
