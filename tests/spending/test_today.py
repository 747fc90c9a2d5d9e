"""The dashboard's numbers beside sums over the ledger's rows in plain Python, and beside the ledger's own accounts."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.ledger import Ledger, LedgerError, Row, waste
from labkit.request import InvalidValue, Usage
from labkit.spending import SPLITS, DayView, Mirror, Slice, Sums, attribute, board, receipt
from tests.spending.books import PRICES, SMALL, rows
from tests.spending.books import rows as booked

DAY = 86_400
NOON = 100 * DAY + 12 * 3_600.0


@st.composite
def two_days(draw):
    """Rows of the day of NOON, the day before it and the hours around them."""
    row = draw(rows())
    finish = draw(st.sampled_from([(), ("stop",), ("length",), ("repetition", "stop")]))
    return replace(row, started_unix=NOON + draw(st.floats(-2 * DAY, DAY)), finish_reasons=finish)


def summed(chosen, everything):
    """`Sums` of the rows `chosen` from all rows, each with its number, by the words of their docstring."""

    def request(row, number):
        return (row.tenant, row.idempotency_key) if row.idempotency_key else number

    firsts, solvers = {}, {}
    for number, row in everything:
        firsts.setdefault(request(row, number), (number, row))
        if row.outcome == "completed" and not row.shadow and not {"length", "repetition"} & set(row.finish_reasons):
            solvers.setdefault(request(row, number), number)
    opening = {n for n, row in firsts.values() if row.idempotency_key or (row.attempt == 1 and not row.shadow)}
    known = [row.cost for _, row in chosen if row.cost is not None]
    return Sums(
        attempts=len(chosen),
        unpriced=len(chosen) - len(known),
        requests=sum(number in opening for number, _ in chosen),
        solved=sum(number in solvers.values() for number, _ in chosen),
        served=sum("response-cache" in row.route for _, row in chosen),
        usage=sum((row.usage for _, row in chosen), Usage()),
        told=sum(row.input_tokens for _, row in chosen if row.cached_tokens is not None),
        cost=sum(known, Decimal(0)),
    )


@given(st.lists(two_days(), max_size=30), st.sampled_from(SPLITS), st.integers(1, 3), st.integers(1, 7))
@settings(max_examples=12, deadline=None)
def test_a_board_is_the_sum_of_its_attempts_however_they_were_read(given_rows, by, shown, at_once):
    with localcontext(prec=60), Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        for first in range(0, len(given_rows), at_once):  # read while they are booked, and not as one
            ledger.extend(given_rows[first : first + at_once])
            mirror.catch_up()
        found = board(mirror, DayView(NOON, by, currency="USD"), shown=shown)
        numbered = list(enumerate(given_rows, 1))
        dollars = [(n, row) for n, row in numbered if row.currency == "USD"]
        midnight = NOON - 12 * 3_600
        now = [(n, row) for n, row in dollars if midnight <= row.started_unix < NOON]
        before = [(n, row) for n, row in dollars if midnight - DAY <= row.started_unix < NOON - DAY]
        whole = [(n, row) for n, row in dollars if midnight - DAY <= row.started_unix < midnight]
        assert found.now.all == summed(now, numbered)
        assert found.before.all == summed(before, numbered)
        assert found.whole_before == summed(whole, numbered)
        assert found.now.retried == summed([(n, row) for n, row in now if row.attempt > 1], numbered)
        assert sum(found.hours.values(), Sums()) == summed([*whole, *now], numbered)
        for hour, totals in found.hours.items():
            start = midnight - DAY + 3_600 * hour
            assert totals == summed([(n, r) for n, r in [*whole, *now] if start <= r.started_unix < start + 3_600], numbered)
        spenders = [*found.top, *([found.others] if found.others else [])]
        assert len(found.top) == min(shown, found.values)
        assert sum((one.now for one in spenders), Sums()) == found.now.all
        assert sum((one.cost_before for one in spenders), Decimal(0)) == found.before.all.cost
        assert [one.now.cost for one in found.top] == sorted((one.now.cost for one in found.top), reverse=True)


@given(st.lists(two_days(), max_size=30), st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_waste_and_the_split_are_those_of_the_ledgers_own_accounts(given_rows, at_once):
    with localcontext(prec=60), Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        for first in range(0, len(given_rows), at_once):
            ledger.extend(given_rows[first : first + at_once])
            mirror.catch_up()
        midnight = NOON - 12 * 3_600
        for currency in ("USD", "EUR"):
            found = board(mirror, DayView(NOON, "model", currency=currency), shown=50)
            table = attribute(Slice(ledger, midnight, NOON, {"currency": currency}), ["model"])
            assert {one.name: one.now.cost for one in found.top if one.now.attempts} == dict(
                zip(table["model"], table["cost"], strict=True)
            )
            for reason in ("failed", "cancelled", "shadow", "superseded"):
                known = found.now.wasted.get(reason, Sums()).cost
                assert known == sum(table[f"wasted_{reason}"], Decimal(0)), reason
        lost = waste(ledger)
        mirrored = dict(mirror.select("SELECT waste, count(*) FROM attempts WHERE waste IS NOT NULL GROUP BY waste"))
        assert mirrored == {reason: part["attempts"].sum() for reason, part in lost.groupby("reason")}


@given(st.lists(two_days(), max_size=30), st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_the_costliest_requests_are_found_with_all_of_their_attempts(given_rows, shown):
    with localcontext(prec=60), Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        ledger.extend(given_rows)
        mirror.catch_up()
        found = board(mirror, DayView(NOON, currency="USD"), shown=shown).requests
        paid = defaultdict(list)
        for number, row in enumerate(given_rows, 1):
            if row.currency == "USD" and NOON - 12 * 3_600 <= row.started_unix < NOON:
                paid[(row.tenant, row.idempotency_key) if row.idempotency_key else number].append(row.cost)
        totals = sorted((sum((c for c in costs if c is not None), Decimal(0)) for costs in paid.values()), reverse=True)
        assert [one.cost for one in found] == totals[:shown]
        for one in found:
            lines = receipt(ledger, one.number).lines
            row = given_rows[one.number - 1]
            assert [line.row for line in lines] == [
                other for other in given_rows if other is row
                or (row.idempotency_key and (other.tenant, other.idempotency_key) == (row.tenant, row.idempotency_key))
            ]  # fmt: skip


def book(at, **fields):
    return Row(
        **{"provider": "lab", "input_tokens": 100, "output_tokens": 10, "cost": Decimal(1), "started_unix": at, **fields}
    )


def test_a_board_keeps_to_what_was_chosen():
    with Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        ledger.extend([
            book(NOON - 10, tenant="north", feature="desk"), book(NOON - 9, tenant="north", feature="mail", cost=None),
            book(NOON - 8, tenant="south", feature="desk", cost=Decimal(5)), book(NOON - 7, currency="EUR"),
            book(None), book(NOON), book(NOON - DAY + 1, tenant="north"),
        ])  # fmt: skip
        assert mirror.catch_up() == 0
        found = board(mirror, DayView(NOON, "feature", {"organisation": "north"}))
        assert [(one.name, one.now.known_cost, one.now.attempts) for one in found.top] == [("desk", 1, 1), ("mail", None, 1),
                                                                                          ("", 0, 0)]  # fmt: skip
        assert (found.now.all.cost, found.now.all.unpriced, found.before.all.attempts) == (1, 1, 0)
        assert found.whole_before.attempts == 1
        everything = board(mirror, DayView(NOON))
        assert (everything.currency, everything.currencies) == ("USD", {"USD": 4, "EUR": 1})
        assert (everything.undated, everything.later) == (1, 1)
        assert board(mirror, DayView(NOON, currency="EUR")).now.all.cost == 1


def test_ratios_are_none_where_nothing_says_what_they_are():
    assert Sums().per_solved is None
    assert Sums().cached_share is None
    assert Sums().served_share is None
    assert Sums().attempts_per_request is None
    assert Sums(attempts=2, unpriced=2, solved=1).per_solved is None
    assert Sums(attempts=2, unpriced=1, solved=1, cost=Decimal(3)).per_solved == 3


@pytest.mark.parametrize("gap", [3 * DAY, 400 * DAY])
def test_after_days_without_traffic_the_board_says_when_the_last_was(gap):
    with Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        ledger.append(book(NOON))
        mirror.catch_up()
        found = board(mirror, DayView(NOON + gap))
        assert (found.last, found.now.all.attempts, found.before.all.attempts) == (NOON, 0, 0)
        assert board(mirror, DayView(found.last + 1)).now.all.attempts == 1


def test_an_empty_ledger_has_an_empty_board():
    with Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        assert mirror.catch_up() == 0
        found = board(mirror, DayView(NOON))
        assert (found.attempts, found.last, found.top, found.requests, found.now.all) == (0, None, (), (), Sums())


def test_a_day_ends_at_its_midnight():
    assert DayView(100 * DAY).since == 99 * DAY
    assert DayView(100 * DAY + 1).since == 100 * DAY
    assert DayView(100.0 * DAY).day == "1970-04-10"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"until": float("nan")}, "until is nan"),
        ({"until": -1.0}, "until is -1.0"),
        ({"until": 1.0, "by": "colour"}, "cannot be split by 'colour'; use organisation"),
        ({"until": 1.0, "only": {"day": "x"}}, "cannot be split by 'day'"),
    ],
)
def test_a_view_of_what_there_is_not_is_refused(fields, says):
    with pytest.raises(InvalidValue, match=says):
        DayView(**fields)


def test_a_mirror_reads_only_what_is_new(tmp_path, monkeypatch):
    with Ledger(tmp_path / "books.db") as ledger, Mirror(ledger) as mirror:
        ledger.extend(book(NOON, attempt_id=str(number)) for number in range(300))
        read = []
        select = ledger.select

        def counting(query, params=()):
            found = select(query, params)
            read.append(len(found))
            return found

        monkeypatch.setattr(ledger, "select", counting)
        assert mirror.catch_up(at_most=100) == 200
        assert mirror.catch_up() == 0
        first, read[:] = sum(read), []
        ledger.append(book(NOON + 1))
        assert mirror.catch_up() == 0
        board(mirror, DayView(NOON + 2))
        assert sum(read) <= 0.02 * first  # one row and two counts


def test_a_mirror_follows_a_ledger_that_another_process_appends_to(tmp_path):
    path = tmp_path / "books.db"
    with Ledger(path) as ledger, Ledger(path) as other, Mirror(ledger) as mirror:
        for number in range(3):
            other.append(book(NOON))
            assert mirror.catch_up() == 0
            assert mirror.attempts == number + 1


def test_a_file_in_the_ledgers_place_is_noticed(tmp_path):
    path = tmp_path / "books.db"
    with Ledger(path) as ledger, Mirror(ledger) as mirror:
        ledger.append(book(NOON))
        mirror.catch_up()
        for end in ("", "-wal", "-shm"):
            if os.path.exists(f"{path}{end}"):
                os.remove(f"{path}{end}")
        Ledger(path).close()
        with pytest.raises(LedgerError, match="has 0 attempts and had 1: another file has taken its place"):
            mirror.catch_up()


def test_amounts_too_large_to_add_up_are_said_to_be():
    with Ledger(":memory:") as ledger, Mirror(ledger) as mirror:
        ledger.extend(book(NOON - 1, cost=Decimal(10) ** 20 - 1) for _ in range(2))
        mirror.catch_up()
        with pytest.raises(LedgerError, match="cannot be added up"):
            board(mirror, DayView(NOON))


def test_a_mirror_needs_a_ledger():
    with pytest.raises(InvalidValue, match="a Mirror is of a Ledger"):
        Mirror("books.db")


@given(st.lists(booked(currencies=("USD",)), min_size=1, max_size=10))
@settings(max_examples=10, deadline=None)
def test_a_receipt_names_each_kind_only_where_the_kinds_are_what_was_booked(given_rows):
    with localcontext(prec=60), Ledger(":memory:") as ledger:
        ledger.extend(given_rows)
        assert len(ledger) == len(given_rows) > 0
        for number, row in enumerate(given_rows, 1):
            (line,) = [line for line in receipt(ledger, number, PRICES).lines if line.row == row]
            assert line.kinds is None or line.kinds.total == row.cost
            assert receipt(ledger, number).totals == receipt(ledger, number, PRICES).totals


def test_a_receipt_has_every_attempt_of_its_request_and_no_other():
    with Ledger(":memory:") as ledger:
        ledger.extend([
            book(1.0, idempotency_key="k", outcome="failed", request_model="small", cost=None),
            book(2.0, idempotency_key="k", tenant="other"),
            book(3.0, idempotency_key="k", attempt=2, request_model="small", cost=Decimal("0.000045")),
        ])  # fmt: skip
        found = receipt(ledger, 1, {"small": SMALL})
        assert [(line.row.attempt, line.wasted) for line in found.lines] == [(1, "failed"), (2, "")]
        assert (found.unpriced, found.totals) == (1, {"USD": Decimal("0.000045")})
        assert found.lines[0].kinds is None
        assert found.lines[1].kinds.total == Decimal("0.000045")
        with pytest.raises(LedgerError, match="no attempt number 4; it has 1 to 3"):
            receipt(ledger, 4)
