from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidRequest,
    InvalidValue,
    Request,
    clock,
    complete,
    within,
)
from labkit.streaming import Decoder, Resumable, StreamGone, to_event
from tests.streaming.engine import WatchedEngine, run

ASKED = Request("q", model="m")


async def read(streams, name, last="", until=None):
    """Read `until` so many events, then hang up; returns them and the last id."""
    got = []
    async with aclosing(streams.read(name, last)) as events:
        async for id, event in events:
            got.append(event)
            last = id
            if len(got) == until:
                break
    return got, last


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 9)), max_size=6), st.integers(1, 8))
def test_however_often_the_line_breaks_the_reader_gets_every_event_once(breaks, count):
    engine = WatchedEngine(tuple(f"{i} " for i in range(count)))

    async def main():
        async with Resumable(engine, grace_s=10) as streams:
            name = streams.start(ASKED)
            got, last = [], ""
            for until, away in breaks:
                more, last = await read(streams, name, last, until)
                got += more
                await asyncio.sleep(away)
            return got + (await read(streams, name, last))[0]

    got = run(main())
    assert "".join(event.text for event in got if isinstance(event, Chunk)) == "".join(engine.pieces)
    assert [isinstance(event, Done) for event in got] == [False] * count + [True]
    assert (len(engine.asked), engine.finished) == (1, 1)


def test_the_engine_runs_on_while_the_reader_is_away():
    engine = WatchedEngine(tuple("abcdef"))

    async def main():
        async with Resumable(engine, grace_s=30) as streams:
            name = streams.start(ASKED)
            _, last = await read(streams, name, until=2)
            await asyncio.sleep(20)
            back = clock.now()
            rest, _ = await read(streams, name, last)
            return rest, clock.now() - back

    rest, waited = run(main())
    assert [getattr(event, "text", "done") for event in rest] == ["c", "d", "e", "f", "done"]
    assert waited == 0


def test_a_reader_that_stays_away_longer_than_the_grace_cancels_the_engine():
    engine = WatchedEngine(tuple("abcdefghijklmnopqrstuvwxyz"))

    async def main():
        async with Resumable(engine, grace_s=5) as streams:
            name = streams.start(ASKED)
            _, last = await read(streams, name, until=2)
            await asyncio.sleep(5.5)
            assert len(streams) == 0
            with pytest.raises(StreamGone, match="ask anew"):
                await read(streams, name, last)

    run(main())
    assert (engine.closed, engine.finished) == (1, 0)
    assert engine.closed_at == pytest.approx(7)


def test_a_stream_that_nobody_ever_reads_is_cancelled_too():
    engine = WatchedEngine(tuple("abcdefgh"))

    async def main():
        streams = Resumable(engine, grace_s=3.5)
        streams.start(ASKED)
        await asyncio.sleep(100)

    run(main())
    assert (engine.closed, engine.produced) == (1, 3)


def test_a_reader_that_is_there_holds_the_stream_however_long_it_takes():
    engine = WatchedEngine(("a", "b"), gap_s=100)

    async def main():
        async with Resumable(engine, grace_s=1) as streams:
            return await read(streams, streams.start(ASKED))

    assert len(run(main())[0]) == 3


def test_whoever_comes_back_takes_over_from_a_line_that_is_dead():
    engine = WatchedEngine(tuple("abcdef"))

    async def main():
        async with Resumable(engine, grace_s=2) as streams:
            name = streams.start(ASKED)
            old = asyncio.create_task(read(streams, name))
            await asyncio.sleep(2.5)
            new = asyncio.create_task(read(streams, name, f"{name}:2"))
            return (await old)[0], (await new)[0]

    old, new = run(main())
    assert [event.text for event in old] == ["a", "b"]
    assert [getattr(event, "text", "done") for event in new] == ["c", "d", "e", "f", "done"]


def test_over_the_wire_a_decoder_s_last_id_is_all_it_takes():
    engine = WatchedEngine(tuple("abcdef"))

    async def main():
        async with Resumable(engine) as streams:
            name = streams.start(ASKED)
            decoder, messages = Decoder(), []
            async with aclosing(streams.sse(name)) as frames:
                async for data in frames:
                    messages += decoder.feed(data)
                    if len(messages) == 3:
                        messages += decoder.feed(b"id: lost\ndata: half")  # the line breaks within an event
                        break
            decoder = Decoder(decoder.last_event_id)
            async for data in streams.sse(name, decoder.last_event_id):
                messages += decoder.feed(data)
            return messages

    events = [to_event(message) for message in run(main())]
    assert "".join(event.text for event in events[:-1]) == "abcdef"
    assert isinstance(events[-1], Done)


def test_an_error_of_the_engine_has_its_place_in_the_stream_each_time():
    engine = WatchedEngine(tuple("abcd"), fail_at=2, error=ConnectionError("the engine fell over"))

    async def main():
        async with Resumable(engine) as streams:
            name = streams.start(ASKED)
            for _ in range(2):
                events = streams.read(name)
                assert [(await anext(events))[1].text for _ in range(2)] == ["a", "b"]
                with pytest.raises(ConnectionError):
                    await anext(events)

    run(main())


def test_closing_ends_every_stream_and_its_readers_hear_of_it():
    engine = WatchedEngine(tuple("abcd"))

    async def main():
        before = asyncio.all_tasks()
        streams = Resumable(engine)
        reader = asyncio.create_task(read(streams, streams.start(ASKED)))
        await asyncio.sleep(1.5)
        await streams.aclose()
        with pytest.raises(EngineError, match="closed"):
            await reader
        assert asyncio.all_tasks() == before

    run(main())
    assert (engine.closed, engine.finished) == (1, 0)


def test_ids_that_are_not_of_the_stream_are_refused():
    async def main():
        async with Resumable(WatchedEngine()) as streams:
            name = streams.start(ASKED)
            for wrong in ("7", "other:1", f"{name}:x", f"{name}:99", f"{name}:-1"):
                with pytest.raises(InvalidRequest):
                    await read(streams, name, wrong)
        with pytest.raises(InvalidValue, match="grace_s"):
            Resumable(WatchedEngine(), grace_s=0)

    run(main())


def test_what_a_resumed_stream_costs_is_in_the_books_of_its_request_and_its_deadline_holds():
    engine = WatchedEngine(tuple("abcdef"))

    async def main(ledger):
        async def forward(request):
            async with Resumable(engine) as streams, aclosing(streams.read(streams.start(request))) as events:
                async for _, event in events:
                    yield event

        handler = Booked(ledger, provider="lab")(forward)
        await complete(handler, ASKED)
        async with Resumable(engine) as streams:
            with pytest.raises(DeadlineExceeded):
                await read(streams, streams.start(within(ASKED, 2.5)))

    with Ledger(":memory:") as ledger:
        run(main(ledger))
        (row,) = ledger.rows()
    assert (row.outcome, row.output_tokens) == ("completed", 6)
    assert (len(engine.asked), engine.finished) == (2, 1)
