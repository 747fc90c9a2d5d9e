from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.ledger import Ledger, Row
from labkit.request import InvalidValue
from labkit.spending import Rental, Slice, share_rent

SPANS = st.lists(st.tuples(st.integers(-20, 110), st.integers(0, 60), st.integers(0, 500)), max_size=12)


def ran(start, seconds, tokens=0, **more):
    return Row(provider="lab", started_unix=float(start), sent=5.0, done=5.0 + seconds, output_tokens=tokens, **more)


def shared(rows, rental, **how):
    with Ledger(":memory:") as ledger:
        ledger.extend(rows)
        return share_rent(Slice(ledger), rental, **how)


@given(SPANS, st.decimals(0, 10**6, places=2), st.sampled_from(["equal", "tokens"]))
@settings(max_examples=60, deadline=None)
def test_the_shares_and_the_idle_line_are_the_invoice_and_idle_is_its_share_of_the_time(spans, invoice, weigh):
    rows = [ran(*span) for span in spans]
    found = shared(rows, Rental(invoice, 0.0, 100.0), weigh=weigh)
    assert sum(found.shares.values(), found.idle) == invoice
    busy = sum(any(start <= second < start + length for start, length, _ in spans) for second in range(100))
    assert found.busy_s == busy
    assert abs(found.idle - invoice * (100 - busy) / 100) < Decimal("1e-11")
    if weigh == "equal":  # second by second, since all starts and ends are whole
        wanted = {row.attempt_id: Fraction(0) for row in rows}
        for second in range(100):
            now = [row.attempt_id for row in rows if row.started_unix <= second < row.started_unix + row.done - row.sent]
            for one in now:
                wanted[one] += Fraction(invoice) / 100 / len(now)
        assert all(
            abs(Fraction(found.shares.get(one, Decimal(0))) - share) < Fraction(1, 10**11) for one, share in wanted.items()
        )


@given(SPANS, st.decimals(0, 10**6, places=2), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_each_team_is_told_whole_cents_that_are_the_invoice(spans, invoice, places):
    rows = [ran(*span, feature=f"team {index % 3}") for index, span in enumerate(spans)]
    table = shared(rows, Rental(invoice, 0.0, 100.0), by=["feature"]).table(places)
    assert sum(table["cost"]) == invoice
    assert all(cost == round(cost, places) for cost in table["cost"])
    assert table["line"].tolist()[-1] == "idle"


def test_two_that_run_at_once_pay_by_their_tokens_a_second():
    long, short = ran(0, 10, 1000, feature="a"), ran(0, 5, 1500, feature="b")
    found = shared([long, short], Rental(Decimal(20), 0.0, 20.0), by=["feature"], weigh="tokens")
    assert found.shares == {long.attempt_id: Decimal("6.25"), short.attempt_id: Decimal("3.75")}
    assert found.table().values.tolist() == [
        ["used", "a", 1, Decimal("6.25")], ["used", "b", 1, Decimal("3.75")], ["idle", None, 0, Decimal(10)],
    ]  # fmt: skip


def test_a_cached_answer_uses_no_machine_and_one_without_times_is_counted():
    cached = ran(0, 10, route=("response-cache",), cost=Decimal(0))
    unpriced = ran(0, 10, route=("response-cache",))
    found = shared([cached, unpriced, Row(provider="lab")], Rental(Decimal(20), 0.0, 20.0))
    assert (dict(found.shares), found.untimed) == ({unpriced.attempt_id: Decimal(10)}, 1)


def test_an_invoice_by_the_hour_is_in_whole_cents():
    assert Rental.at(Decimal("2.49"), 0.0, 1000.0).invoice == Decimal("0.69")


@pytest.mark.parametrize(
    "wrong", [(Decimal("0.001"), 0.0, 1.0), (Decimal(-1), 0.0, 1.0), (1.5, 0.0, 1.0), (Decimal(1), 1.0, 1.0)]
)
def test_a_rental_that_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidValue):
        Rental(*wrong)


def test_a_slice_with_a_period_of_its_own_is_refused():
    with Ledger(":memory:") as ledger, pytest.raises(InvalidValue, match="leave since"):
        share_rent(Slice(ledger, since=0.0), Rental(Decimal(1), 0.0, 1.0))


def test_a_way_of_weighing_that_there_is_none_of_is_refused():
    with Ledger(":memory:") as ledger, pytest.raises(InvalidValue, match="equal, tokens"):
        share_rent(Slice(ledger), Rental(Decimal(1), 0.0, 1.0), weigh="bytes")
