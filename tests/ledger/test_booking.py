import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import time
from decimal import Decimal

import pytest

from labkit.cost import Price, price_request, self_defined
from labkit.ledger import Booked, InvalidRow, Ledger, LedgerError, Row
from labkit.request import (
    Chooser,
    Chunk,
    Done,
    EngineError,
    InvalidValue,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
    complete,
    stack,
)

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


PER_TOKEN = {"*": self_defined("any", "1000", "1000")}


def booked(engine, ledger, provider="lab", prices=PER_TOKEN):
    return stack(Booked(ledger, prices, provider), engine=engine)


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
        prompt_version="v2",
        idempotency_key="k",
        attempt=2,
        shadow=True,
    )
    completion = clock.run_virtual(complete(booked(engine(), ledger), request), epoch=1000.0)
    row = only(ledger)
    expected = Row(
        provider="lab", request_model="m", response_model="m-1", response_id="id", finish_reasons=("stop",), max_tokens=9,
        temperature=0.0, input_tokens=10, output_tokens=4, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1,
        usage_source="reported", cost=Decimal("0.014"), tenant="t", user="u", feature="f", workflow="w",
        prompt_version="v2", idempotency_key="k", attempt=2,
        shadow=True, route=("engine",), sent=0.0, first_token=1.0, last_token=4.0, done=4.0, started_unix=1000.0,
        attempt_id=row.attempt_id,
    )  # fmt: skip
    assert row == expected
    assert completion.done.cost == Decimal("0.014")
    assert completion.text == "xxxx"


def test_the_row_is_kept_before_the_done_is_seen(ledger):
    async def main():
        async with aclosing(booked(engine(), ledger)(Request("hi"))) as events:
            return [(type(event), len(ledger)) async for event in events]

    assert clock.run_virtual(main()) == [(Chunk, 0)] * 5 + [(Done, 1)]


def test_a_cost_already_on_the_done_is_booked_as_it_is(ledger):
    handler = booked(engine(cost=Decimal(0)), ledger)
    assert clock.run_virtual(complete(handler, Request("hi"))).done.cost == 0
    assert only(ledger).cost == 0


def test_without_a_price_the_cost_is_unknown_not_zero(ledger):
    assert clock.run_virtual(complete(booked(engine(), ledger, prices={}), Request("hi"))).done.cost is None
    assert only(ledger).cost is None


@pytest.mark.parametrize(("events", "output"), [(2, 1), (3, 2), (4, 3), (5, 4)])
def test_a_closed_stream_is_booked_as_cancelled_with_its_running_usage(ledger, events, output):
    handler = booked(engine(running=True), ledger)
    clock.run_virtual(take(handler, Request("hi", model="m"), events))
    row = only(ledger)
    assert (row.outcome, row.error_type, row.usage_source) == ("cancelled", None, "running")
    assert row.usage == Usage(10, output)
    assert row.cost == price_request(Usage(10, output), PER_TOKEN["*"]).total
    assert (row.sent, row.first_token, row.last_token, row.done) == (0, 1, output, output)


def test_without_a_running_usage_the_chunks_are_counted_and_the_input_and_cost_stay_unknown(ledger):
    clock.run_virtual(take(booked(engine(), ledger), Request("hi"), 3))
    row = only(ledger)
    assert (row.input_tokens, row.output_tokens, row.usage_source, row.cost) == (None, 2, "counted", None)


def test_a_cancelled_task_is_booked_and_stays_cancelled(ledger):
    async def main():
        task = asyncio.create_task(complete(booked(engine(), ledger), Request("hi")))
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
    handler = booked(engine(running=True, fail_at=2, error=error), ledger)
    with pytest.raises(type(error)) as caught:
        clock.run_virtual(complete(handler, Request("hi")))
    assert caught.value is error
    row = only(ledger)
    assert (row.outcome, row.error_type, row.usage, row.done) == ("failed", name, Usage(10, 2), 3)


def test_a_stream_that_ends_without_done_is_booked_as_failed(ledger):
    with pytest.raises(StreamIncomplete):
        clock.run_virtual(complete(booked(engine(finish=False), ledger), Request("hi")))
    assert (only(ledger).outcome, only(ledger).error_type) == ("failed", "StreamIncomplete")


def test_a_stream_nobody_ever_listened_to_costs_and_books_nothing(ledger):
    async def main():
        await booked(engine(), ledger)(Request("hi")).aclose()

    clock.run_virtual(main())
    assert len(ledger) == 0


def test_every_attempt_of_a_retried_request_has_its_row(ledger):
    paid = booked(engine(fail_at=1, error=EngineError("busy", status=429)), ledger)
    good = booked(engine(), ledger)

    async def main():
        request = Request("hi", idempotency_key="k")
        with pytest.raises(EngineError):
            await complete(paid, request)
        await complete(good, replace(request, attempt=2))

    clock.run_virtual(main())
    assert [(r.attempt, r.outcome, r.error_type) for r in ledger.rows()] == [(1, "failed", "429"), (2, "completed", None)]


class Broken(Price):
    """A price list that fails when it is asked."""

    def rates_for(self, input_tokens, batch=False):
        raise LookupError("the list is torn")


def broken():
    whole = PER_TOKEN["*"]
    return Broken(whole.model, whole.provider, whole.rates, "torn", "2026-01-01")


def test_a_price_that_fails_costs_neither_the_answer_nor_its_row(ledger):
    completion = clock.run_virtual(complete(booked(engine(), ledger, prices={"*": broken()}), Request("hi")))
    assert (completion.text, completion.done.cost) == ("xxxx", None)
    (fault,) = completion.done.faults
    assert isinstance(fault.error, LookupError)
    row = only(ledger)
    assert (row.outcome, row.cost, row.usage) == ("completed", None, USAGE)
    assert "the list is torn" in row.note


def test_a_price_that_fails_for_a_cut_stream_is_in_the_rows_note(ledger):
    error = EngineError("down")
    handler = booked(engine(running=True, fail_at=2, error=error), ledger, prices={"*": broken()})
    with pytest.raises(EngineError) as caught:
        clock.run_virtual(complete(handler, Request("hi")))
    assert caught.value is error
    assert (only(ledger).cost, only(ledger).output_tokens) == (None, 2)
    assert "the list is torn" in only(ledger).note


def test_a_model_without_a_price_is_booked_unpriced_with_the_reason(ledger):
    done = clock.run_virtual(complete(booked(engine(), ledger, prices={"other": PER_TOKEN["*"]}), Request("hi"))).done
    assert (done.cost, done.faults) == (None, ())
    assert only(ledger).note == "no price for m-1"


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("response_id", 7),
        ("finish_reason", 3),
        ("finish_reason", None),
        ("usage", Usage(10**30, 5)),
        ("usage", None),
        ("usage", {"input_tokens": 3}),
        ("timing", None),
        ("cost", Decimal("NaN")),
        ("cost", Decimal(-1)),
        ("cost", 0.5),
        ("model", ["m"]),
        ("route", "here"),
        ("timing", Timing(float("nan"))),
    ],
)
def test_a_done_that_cannot_be_booked_as_it_is_is_booked_with_what_is_known(ledger, what, value):
    async def odd(request):
        async for event in engine()(request):
            yield replace(event, **{what: value}) if isinstance(event, Done) else event

    assert clock.run_virtual(complete(booked(odd, ledger), Request("hi"))).text == "xxxx"
    row = only(ledger)
    assert row.outcome == "completed"
    assert row.note
    assert row.response_id == "id" or what == "response_id" or value in (None, {"input_tokens": 3})


def test_two_ledgers_each_know_of_an_end_that_cannot_be_read(ledger):
    async def odd(request):
        async for event in engine()(request):
            yield replace(event, timing=None) if isinstance(event, Done) else event

    with Ledger(":memory:") as other:
        inner = Booked(other, PER_TOKEN, "lab")
        done = clock.run_virtual(complete(stack(Booked(ledger, PER_TOKEN, "lab"), inner, engine=odd), Request("hi"))).done
        assert len(set(done.booked)) == 2
        assert [only(each).outcome for each in (ledger, other)] == ["completed", "completed"]


@pytest.mark.parametrize("tokens", [None, -3, 2.5, "many"])
def test_a_chunk_that_counts_nonsense_costs_no_answer(ledger, tokens):
    async def odd(request):
        async for event in engine()(request):
            yield replace(event, tokens=tokens) if isinstance(event, Chunk) else event

    assert clock.run_virtual(complete(booked(odd, ledger), Request("hi"))).text == "xxxx"
    assert only(ledger).usage == USAGE


def test_an_engine_that_fails_after_its_done_has_given_its_answer(ledger):
    async def falls_over(request):
        async for event in engine()(request):
            yield event
        raise ConnectionError("reset by peer")

    answer = clock.run_virtual(complete(booked(falls_over, ledger), Request("hi")))
    assert (answer.text, str(answer.done.faults[-1])) == ("xxxx", "after the answer: reset by peer")
    assert only(ledger).outcome == "completed"


def test_each_model_of_a_chooser_has_its_own_price_and_currency(ledger):
    prices = {"a": self_defined("a", "1", "1"), "b": replace(self_defined("b", "100", "100"), currency="EUR")}
    handler = stack(Booked(ledger, prices, "lab"), Both(), engine={"a": engine(), "b": engine()})
    clock.run_virtual(complete(handler, Request("hi")))
    costs = {row.request_model: (row.cost, row.currency) for row in ledger.rows()}
    assert costs == {
        "a": (price_request(USAGE, prices["a"]).total, "USD"),
        "b": (price_request(USAGE, prices["b"]).total, "EUR"),
    }


def test_the_cost_on_the_answer_is_in_the_lists_own_currency(ledger):
    price = replace(self_defined("m", "2", "10", cached="0.5", cache_write="3"), currency="EUR")
    done = clock.run_virtual(complete(booked(engine(), ledger, prices={"m-1": price}), Request("hi"))).done
    assert (done.cost, done.currency) == (Decimal("0.0000575"), "EUR")  # 5 × 2 + 3 × 0.5 + 2 × 3 + 4 × 10, in millionths


def test_a_price_that_depends_on_the_hour_is_that_of_the_requests_hour(ledger):
    night, noon = self_defined("m", "1", "1"), self_defined("m", "100", "100")
    price = replace(night, day=((time(0), night), (time(12), noon)))
    handler = booked(engine(), ledger, prices={"*": price})
    costs = [clock.run_virtual(complete(handler, Request("hi")), epoch=3600.0 * hour).done.cost for hour in (3, 13)]
    assert costs == [price_request(USAGE, night).total, price_request(USAGE, noon).total]


def test_a_model_that_can_be_chosen_and_has_no_price_is_told_when_the_stack_is_built(ledger):
    prices = {"a": PER_TOKEN["*"]}
    with pytest.raises(InvalidValue, match="the price list has no b"):
        stack(Booked(ledger, prices), Both(), engine={"a": engine(), "b": engine()})


@pytest.mark.parametrize("prices", [PER_TOKEN["*"], {"m": Decimal(1)}, {3: PER_TOKEN["*"]}, {"m": lambda m, u: 1}])
def test_what_is_no_price_list_is_refused_before_anything_is_asked(ledger, prices):
    with pytest.raises(InvalidValue, match="price"):
        Booked(ledger, prices)


class Both(Chooser):
    """Asks all its models, one after another, and gives the last one's answer."""

    def over(self, models):
        async def handle(request):
            for name, model in models.items():
                answer = await complete(model, replace(request, model=name))
            for chunk in answer.chunks:
                yield chunk
            yield answer.done

        return handle


def test_a_request_that_could_not_be_booked_never_reaches_the_engine(ledger):
    started = []

    async def spy(request):
        started.append(request)
        yield Chunk("", 0.0)

    with pytest.raises(InvalidRow):
        clock.run_virtual(complete(booked(spy, ledger), Request("hi", tenant=7)))
    assert started == []


@pytest.mark.parametrize("ends", ["completed", "failed", "cancelled"])
def test_a_ledger_that_fails_costs_no_answer_and_its_row_comes_with_the_next_one(ends, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "books.db")
    error = EngineError("down")
    handler = booked(engine(fail_at=2 if ends == "failed" else None, error=error), ledger)

    def full(rows):
        raise LedgerError("the disk is full", rows=tuple(rows))

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "extend", full)
        if ends == "completed":
            done = clock.run_virtual(complete(handler, Request("hi"))).done
            assert "disk is full" in str(done.faults[0])
            assert done.faults[0].error.row.outcome == "completed"
        elif ends == "failed":
            with pytest.raises(EngineError) as caught:
                clock.run_virtual(complete(handler, Request("hi")))
            assert caught.value is error
            assert "disk is full" in caught.value.__notes__[0]
        else:
            clock.run_virtual(take(handler, Request("hi"), 3))
    assert len(ledger) == 0
    clock.run_virtual(take(handler, Request("hi"), 1))
    assert [row.outcome for row in ledger.rows()] == [ends, "cancelled"]


def test_booking_changes_neither_events_nor_their_times(ledger):
    async def events_of(handler):
        return [event async for event in handler(Request("hi"))]

    bare = clock.run_virtual(events_of(engine()))
    assert clock.run_virtual(events_of(booked(engine(), ledger, prices={}))) == bare
