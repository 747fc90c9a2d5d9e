"""Each mishap ends in one answer or one clear error, looks to levers as the real one does, and leaves one true row."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    InvalidValue,
    Request,
    StreamIncomplete,
    clock,
    complete,
    run_virtual,
    stack,
    within,
)
from labkit.resilience import MISHAP_FIELD, Backoff, Mishap, Mishaps, Retry

PRICE = self_defined("test", "1000000", "10000000")  # 1 a token read, 10 a token written


async def _events(handler, request):
    """What arrived, and the error that ended it (None for none)."""
    got = []
    try:
        async for event in handler(request):
            got.append(event)  # noqa: PERF401 - what came before an error counts
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return got, error
    return got, None


def befallen(*mishaps, engine=None, extra=None, remote=False, deadline_s=None):
    """The events, the error, when it was over, and the row (None for a request that no attempt was made for)."""
    engine = engine or ScriptedEngine()
    with Ledger(":memory:") as ledger:

        async def main():
            handler = stack(Booked(ledger, {"*": PRICE}), Mishaps(mishaps, remote=remote), engine=engine)
            request = Request("Hello", extra=extra or {})
            got, error = await _events(handler, request if deadline_s is None else within(request, deadline_s))
            return got, error, clock.now()

        got, error, at = run_virtual(main())
        (row,) = ledger.rows() or (None,)
    return got, error, at, row


def text_of(got):
    return "".join(event.text for event in got if isinstance(event, Chunk))


@pytest.mark.parametrize(("kind", "status"), [("rate-limit", 429), ("error", 500), ("unavailable", 503)])
def test_a_refusal_costs_nothing_and_reaches_no_engine(kind, status):
    engine = ScriptedEngine()
    got, error, at, row = befallen(Mishap(kind, retry_after_s=7.0), engine=engine)
    assert type(error) is EngineError
    assert (error.status, error.retry_after_s, got, at) == (status, 7.0, [], 0.0)
    assert engine.asked == []
    assert (row.outcome, row.error_type, row.usage, row.cost) == ("failed", str(status), None, None)


def test_retry_after_as_a_date_is_what_the_reader_of_endpoints_makes_of_it():
    from datetime import UTC, datetime
    from email.utils import format_datetime

    from labkit.engines.faults import retry_after_s

    async def main():
        handler = stack(Mishaps((Mishap("rate-limit", retry_after_s=7.25, as_date=True),)), engine=ScriptedEngine())
        _, error = await _events(handler, Request("Hello"))
        date = format_datetime(datetime.fromtimestamp(1_000_008, UTC), usegmt=True)
        return error.retry_after_s, retry_after_s({"retry-after": date})

    told, read = run_virtual(main(), epoch=1_000_000.5)
    assert told == pytest.approx(read) == pytest.approx(7.5)


def test_no_answer_ends_as_an_endpoint_that_sends_nothing():
    engine = ScriptedEngine()
    got, error, at, row = befallen(Mishap("no-answer", wait_s=30.0), engine=engine)
    assert (type(error), got, at, engine.asked) == (EngineStalled, [], 30.0, [])
    assert (row.outcome, row.error_type, row.cost) == ("failed", "EngineStalled", None)


def test_a_deadline_ends_the_wait():
    _, error, at, row = befallen(Mishap("no-answer", wait_s=30.0), deadline_s=2.0)
    assert isinstance(error, TimeoutError)
    assert at == 2.0
    assert row.outcome == "cancelled"


@pytest.mark.parametrize(
    ("mishap", "error", "seen", "paid", "at"),
    [
        (Mishap("cut", after=0), EngineUnreachable, "", 1, 1.0),
        (Mishap("cut", after=1), StreamIncomplete, "a ", 2, 2.0),
        (Mishap("cut", after=2), StreamIncomplete, "a b ", 3, 3.0),
        (Mishap("cut", after=3), StreamIncomplete, "a b c ", 3, 3.0),  # behind the last piece, before the Done
        (Mishap("stall", after=1, wait_s=50.0), EngineStalled, "a ", 2, 52.0),
        (Mishap("stall", after=3, wait_s=50.0), EngineStalled, "a b c ", 3, 53.0),
        (Mishap("lost", wait_s=50.0), EngineStalled, "", 3, 53.0),
    ],
)
def test_what_was_computed_before_the_break_is_paid(mishap, error, seen, paid, at):
    engine = ScriptedEngine()
    got, raised, over, row = befallen(mishap, engine=engine)
    assert type(raised) is error
    assert (text_of(got), over) == (seen, at)
    assert (row.outcome, row.error_type, row.usage_source) == ("failed", error.__name__, "running")
    assert row.output_tokens == engine.used.output_tokens == paid
    assert row.cost == Decimal(10 + 10 * paid)
    assert engine.closed == 1


def test_a_stream_without_a_done():
    got, error, _, row = befallen(Mishap("no-done"))
    assert (text_of(got), error) == ("a b c ", None)
    assert not any(isinstance(event, Done) for event in got)
    assert (row.outcome, row.output_tokens) == ("failed", 3)
    with pytest.raises(StreamIncomplete):
        run_virtual(complete(stack(Mishaps((Mishap("no-done"),)), engine=ScriptedEngine()), Request("Hello")))


def test_a_drip_is_whole_and_late():
    got, error, at, row = befallen(Mishap("drip", wait_s=10.0))
    assert (text_of(got), error, at) == ("a b c ", None, 33.0)
    assert (got[-1].timing.first_token, got[-1].timing.last_token) == (11.0, 33.0)
    assert row.outcome == "completed"


def test_an_empty_answer_is_paid():
    got, error, _, row = befallen(Mishap("empty"))
    assert (text_of(got), error, got[-1].usage.output_tokens) == ("", None, 3)
    assert (row.outcome, row.output_tokens) == ("completed", 3)


def test_malformed_answers():
    got, error, _, row = befallen(Mishap("garbled", after=1))
    assert (text_of(got), error, row.outcome) == ("a \ufffd\ufffd\ufffd\ufffd", None, "completed")
    got, error, _, row = befallen(Mishap("bad-usage"))
    assert (text_of(got), error) == ("a b c ", None)
    assert got[-1].usage_note
    assert "no sense" in row.note
    assert row.cost is None
    got, error, _, row = befallen(Mishap("after-done"))
    assert [type(event) for event in got[-2:]] == [Done, Chunk]
    assert row.outcome == "completed"


def test_shares_come_out_and_the_seed_repeats_them():
    mishaps = Mishaps((Mishap("error", share=0.2), Mishap("cut", share=0.5)), seed=3)
    drawn = [mishaps.befalls(number, 0.0) for number in range(1, 4001)]
    counts = Counter(mishap and mishap.kind for mishap in drawn)
    assert counts["error"] / 4000 == pytest.approx(0.2, abs=0.03)
    assert counts["cut"] / 4000 == pytest.approx(0.8 * 0.5, abs=0.03)
    assert drawn == [Mishaps(mishaps.mishaps, seed=3).befalls(number, 0.0) for number in range(1, 4001)]
    assert drawn != [Mishaps(mishaps.mishaps, seed=4).befalls(number, 0.0) for number in range(1, 4001)]


def test_an_outage_lasts_as_long_as_it_says():
    mishaps = Mishaps((Mishap("unavailable", start_s=10.0, end_s=20.0),))
    assert [mishaps.befalls(1, at) is None for at in (9.9, 10.0, 19.9, 20.0)] == [True, False, False, True]


def test_a_request_may_ask_for_its_own():
    engine = ScriptedEngine()
    spared = befallen(Mishap("error"), engine=engine, extra={MISHAP_FIELD: "none", "top_k": 1}, remote=True)
    assert (text_of(spared[0]), spared[1]) == ("a b c ", None)
    assert engine.asked[0].extra == {"top_k": 1}
    _, error, _, _ = befallen(extra={MISHAP_FIELD: {"kind": "cut", "after": 1}}, remote=True)
    assert isinstance(error, StreamIncomplete)
    _, error, _, _ = befallen(extra={MISHAP_FIELD: "rate-limit"}, remote=False)
    assert error is None


@pytest.mark.parametrize("asked", ["explode", {"kind": "cut", "when": 1}, {"after": 1}, 7, {"kind": "cut", "after": -1}])
def test_a_request_that_asks_for_nonsense(asked):
    got, error, _, row = befallen(extra={MISHAP_FIELD: asked}, remote=True)
    assert isinstance(error, InvalidRequest)
    assert MISHAP_FIELD in str(error)
    assert (got, row) == ([], None)


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize(
    ("mishap", "error", "paid"), [(Mishap("cut"), "StreamIncomplete", 2), (Mishap("error"), "500", None)]
)
def test_a_ledger_below_hears_the_same_as_one_above(below, mishap, error, paid):
    with Ledger(":memory:") as ledger:
        levers = (Mishaps((mishap,)), Booked(ledger, {"*": PRICE}))
        handler = stack(*(levers if below else reversed(levers)), engine=ScriptedEngine())
        with pytest.raises(EngineError):
            run_virtual(complete(handler, Request("Hello")))
        (row,) = ledger.rows()
    assert (row.outcome, row.error_type, row.output_tokens) == ("failed", error, paid)


def test_levers_cannot_tell():
    """A retry over an outage: refused, refused, answered, and a row for each attempt."""
    with Ledger(":memory:") as ledger:
        handler = stack(
            Booked(ledger, {"*": PRICE}),
            Retry(3, Backoff(4.0, 8.0, "none")),
            Mishaps((Mishap("unavailable", end_s=10.0),)),
            engine=ScriptedEngine(),
        )
        answer = run_virtual(complete(handler, Request("Hello")))
        rows = list(ledger.rows())
    assert (answer.text, answer.done.route) == ("a b c ", ("retry:3",))
    assert [(row.attempt, row.outcome, row.error_type) for row in rows] == [
        (1, "failed", "503"),
        (2, "failed", "503"),
        (3, "completed", None),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "flood"},
        {"share": 1.5},
        {"after": -1},
        {"wait_s": float("inf")},
        {"retry_after_s": -1.0},
        {"start_s": 5, "end_s": 5},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(InvalidValue):
        Mishap(**{"kind": "cut", **settings})
    with pytest.raises(InvalidValue, match="tuple of Mishap"):
        Mishaps(("cut",))
