import asyncio
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.ledger import InvalidRow, Ledger, LedgerError, Row, booked
from labkit.request import Chunk, Done, EngineError, Request, StreamIncomplete, Timing, Usage, clock, complete

USAGE = Usage(10, 4, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1)


def engine(chunks=4, running=False, fail_at=None, error=None, cost=None, finish=True):
    """One chunk a second, an empty one first as OpenAI-compatible engines send it."""

    async def handle(request):
        sent, unix = clock.now(), clock.unix_now()
        yield Chunk("", clock.now(), tokens=0)
        for i in range(chunks):
            await asyncio.sleep(1)
            if i == fail_at:
                raise error
            yield Chunk("x", clock.now(), usage=Usage(10, i + 1) if running and i % 2 == 0 else None)
        if finish:
            timing = Timing(sent, sent + 1, clock.now(), clock.now(), unix)
            yield Done(USAGE, timing, model="m-1", response_id="id", route=("engine",), cost=cost)

    return handle


def per_token(model, usage):
    return Decimal("0.001") * (usage.input_tokens + usage.output_tokens)


@pytest.fixture
def ledger():
    with Ledger(":memory:") as opened:
        yield opened


def only(ledger):
    (row,) = ledger.rows()
    return row


async def take(handler, request, count):
    async with aclosing(handler(request)) as events:
        taken = 0
        async for _ in events:
            taken += 1
            if taken == count:
                return


def test_a_completed_attempt_is_booked_with_who_why_usage_timing_and_cost(ledger):
    request = Request(
        "hi",
        model="m",
        max_tokens=9,
        tenant="t",
        user="u",
        feature="f",
        workflow="w",
        idempotency_key="k",
        attempt=2,
        shadow=True,
    )
    completion = clock.run_virtual(
        complete(booked(engine(), ledger, provider="lab", price=per_token), request), epoch=1000.0
    )
    row = only(ledger)
    expected = Row(
        provider="lab", request_model="m", response_model="m-1", response_id="id", finish_reasons=("stop",), max_tokens=9,
        temperature=0.0, input_tokens=10, output_tokens=4, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1,
        usage_source="reported", cost=Decimal("0.014"), tenant="t", user="u", feature="f", workflow="w", idempotency_key="k",
        attempt=2, shadow=True, route=("engine",), sent=0.0, first_token=1.0, last_token=4.0, done=4.0, started_unix=1000.0,
        attempt_id=row.attempt_id,
    )  # fmt: skip
    assert row == expected
    assert completion.done.cost == Decimal("0.014")
    assert completion.text == "xxxx"


def test_the_row_is_kept_before_the_done_is_seen(ledger):
    async def main():
        async with aclosing(booked(engine(), ledger, provider="lab")(Request("hi"))) as events:
            return [(type(event), len(ledger)) async for event in events]

    assert clock.run_virtual(main()) == [(Chunk, 0)] * 5 + [(Done, 1)]


def test_a_cost_already_on_the_done_is_booked_as_it_is(ledger):
    handler = booked(engine(cost=Decimal(0)), ledger, provider="lab", price=per_token)
    assert clock.run_virtual(complete(handler, Request("hi"))).done.cost == 0
    assert only(ledger).cost == 0


def test_without_a_price_the_cost_is_unknown_not_zero(ledger):
    assert clock.run_virtual(complete(booked(engine(), ledger, provider="lab"), Request("hi"))).done.cost is None
    assert only(ledger).cost is None


@pytest.mark.parametrize(("events", "output"), [(2, 1), (3, 2), (4, 3), (5, 4)])
def test_a_closed_stream_is_booked_as_cancelled_with_its_running_usage(ledger, events, output):
    handler = booked(engine(running=True), ledger, provider="lab", price=per_token)
    clock.run_virtual(take(handler, Request("hi", model="m"), events))
    row = only(ledger)
    assert (row.outcome, row.error_type, row.usage_source) == ("cancelled", None, "running")
    assert row.usage == Usage(10, output)
    assert row.cost == per_token("m", Usage(10, output))
    assert (row.sent, row.first_token, row.last_token, row.done) == (0, 1, output, output)


def test_without_a_running_usage_the_chunks_are_counted_and_the_input_and_cost_stay_unknown(ledger):
    clock.run_virtual(take(booked(engine(), ledger, provider="lab", price=per_token), Request("hi"), 3))
    row = only(ledger)
    assert (row.input_tokens, row.output_tokens, row.usage_source, row.cost) == (None, 2, "counted", None)


def test_a_cancelled_task_is_booked_and_stays_cancelled(ledger):
    async def main():
        task = asyncio.create_task(complete(booked(engine(), ledger, provider="lab"), Request("hi")))
        await asyncio.sleep(2.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    clock.run_virtual(main())
    row = only(ledger)
    assert (row.outcome, row.output_tokens, row.done) == ("cancelled", 2, 2.5)


@pytest.mark.parametrize(
    ("error", "name"),
    [(EngineError("busy", status=503), "503"), (EngineError("gone"), "EngineError"), (KeyError("x"), "KeyError")],
)
def test_a_failed_stream_is_booked_with_its_error_type_and_the_error_goes_on(ledger, error, name):
    handler = booked(engine(running=True, fail_at=2, error=error), ledger, provider="lab", price=per_token)
    with pytest.raises(type(error)) as caught:
        clock.run_virtual(complete(handler, Request("hi")))
    assert caught.value is error
    row = only(ledger)
    assert (row.outcome, row.error_type, row.usage, row.done) == ("failed", name, Usage(10, 2), 3)


def test_a_stream_that_ends_without_done_is_booked_as_failed(ledger):
    with pytest.raises(StreamIncomplete):
        clock.run_virtual(complete(booked(engine(finish=False), ledger, provider="lab"), Request("hi")))
    assert (only(ledger).outcome, only(ledger).error_type) == ("failed", "StreamIncomplete")


def test_a_stream_nobody_ever_listened_to_costs_and_books_nothing(ledger):
    async def main():
        await booked(engine(), ledger, provider="lab")(Request("hi")).aclose()

    clock.run_virtual(main())
    assert len(ledger) == 0


def test_every_attempt_of_a_retried_request_has_its_row(ledger):
    paid = booked(engine(fail_at=1, error=EngineError("busy", status=429)), ledger, provider="lab")
    good = booked(engine(), ledger, provider="lab")

    async def main():
        request = Request("hi", idempotency_key="k")
        with pytest.raises(EngineError):
            await complete(paid, request)
        await complete(good, replace(request, attempt=2))

    clock.run_virtual(main())
    assert [(r.attempt, r.outcome, r.error_type) for r in ledger.rows()] == [(1, "failed", "429"), (2, "completed", None)]


def test_a_price_that_fails_is_raised_after_the_attempt_is_booked(ledger):
    def no_price(model, usage):
        raise LookupError(f"no price for {model}")

    with pytest.raises(LookupError, match="m-1"):
        clock.run_virtual(complete(booked(engine(), ledger, provider="lab", price=no_price), Request("hi")))
    assert (only(ledger).outcome, only(ledger).cost) == ("completed", None)


def test_a_price_that_fails_for_a_cut_stream_is_a_note_on_what_cut_it(ledger):
    def no_price(model, usage):
        raise LookupError("no price")

    error = EngineError("down")
    handler = booked(engine(running=True, fail_at=2, error=error), ledger, provider="lab", price=no_price)
    with pytest.raises(EngineError) as caught:
        clock.run_virtual(complete(handler, Request("hi")))
    assert "no price" in caught.value.__notes__[0]
    assert (only(ledger).cost, only(ledger).output_tokens) == (None, 2)


def test_a_price_that_is_no_decimal_is_refused_after_the_attempt_is_booked(ledger):
    with pytest.raises(InvalidRow, match="Decimal"):
        clock.run_virtual(complete(booked(engine(), ledger, provider="lab", price=lambda m, u: 0.5), Request("hi")))
    assert only(ledger).cost is None


def test_a_request_that_could_not_be_booked_never_reaches_the_engine(ledger):
    started = []

    async def spy(request):
        started.append(request)
        yield Chunk("", 0.0)

    with pytest.raises(InvalidRow):
        clock.run_virtual(complete(booked(spy, ledger, provider=""), Request("hi")))
    assert started == []


@pytest.mark.parametrize("ends", ["completed", "failed", "cancelled"])
def test_when_the_ledger_fails_the_row_is_in_the_error(ends):
    ledger = Ledger(":memory:")
    ledger.close()
    error = EngineError("down")
    handler = booked(engine(fail_at=2 if ends == "failed" else None, error=error), ledger, provider="lab")
    with pytest.raises(LedgerError) as caught:
        clock.run_virtual(take(handler, Request("hi"), 3 if ends == "cancelled" else 99))
    assert caught.value.row.outcome == ends
    if ends == "failed":
        assert caught.value.__cause__ is error
    with Ledger(":memory:") as other:
        other.append(caught.value.row)
        assert len(other) == 1


def test_booking_changes_neither_events_nor_their_times(ledger):
    async def events_of(handler):
        return [event async for event in handler(Request("hi"))]

    bare = clock.run_virtual(events_of(engine()))
    assert clock.run_virtual(events_of(booked(engine(), ledger, provider="lab"))) == bare
