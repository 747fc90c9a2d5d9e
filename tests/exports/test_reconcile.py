"""One ledger, five exports, one sum."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import exports
from labkit.ledger import Row
from tests.exports.ledgers import attempts, ledger_of, receiver


@settings(max_examples=15, deadline=None)
@given(st.lists(attempts(), max_size=12))
def test_all_exports_of_any_ledger_agree(rows):
    ledger = ledger_of(rows)
    focus = exports.focus_rows(ledger)
    with tempfile.TemporaryDirectory() as folder, receiver() as (address, got, _):
        csv, parquet = Path(folder) / "focus.csv", Path(folder) / "focus.parquet"
        assert exports.write_focus_csv(focus, csv) == exports.write_focus_parquet(focus, parquet) == len(rows)
        assert exports.send_otlp(ledger, address).spans == len(rows)
        found = {
            "FOCUS": exports.totals_of_focus(focus),
            "CSV": exports.totals_of_focus(exports.read_focus_csv(csv)),
            "Parquet": exports.totals_of_parquet(parquet),
            "spans": exports.totals_of_otlp_spans(got["/v1/traces"]),
            "metrics": exports.totals_of_otlp_metrics(got["/v1/metrics"]),
        }
    assert exports.reconcile(ledger, found) == []
    scraped = exports.totals_of_exposition(exports.exposition(exports.LedgerMetrics(ledger)))
    assert exports.reconcile(ledger, {"Prometheus": scraped}, currencies=["USD"]) == []
    # The sums by hand: where no float is involved, they are equal to the last digit.
    for name in ("FOCUS", "CSV", "Parquet", "spans"):
        for currency in ("USD", "EUR"):
            amounts = [row.cost for row in rows if row.cost is not None and row.currency == currency]
            assert found[name].cost.get(currency, 0) == sum(amounts, Decimal(0))
        assert found[name].unpriced == sum(row.cost is None for row in rows)


def test_a_missing_attempt_and_a_lost_cent_are_found():
    ledger = ledger_of([Row(provider="lab", cost=Decimal("0.10"), input_tokens=7, output_tokens=2), Row(provider="lab")])
    right = exports.totals_of(ledger.rows())
    wrong = exports.Totals(1, 0, {**right.tokens, "fresh_input": 6}, {"USD": Decimal("0.09")})
    said = [str(each) for each in exports.reconcile(ledger, {"right": right, "wrong": wrong})]
    assert said == [
        "wrong: attempts is 1, and 2 in the ledger",
        "wrong: unpriced is 0, and 1 in the ledger",
        "wrong: fresh_input tokens is 6, and 7 in the ledger",
        "wrong: cost in USD is 0.09, and 0.10 in the ledger",
    ]


def test_an_unpriced_currency_is_not_a_sum_of_zero():
    ledger = ledger_of([Row(provider="lab", currency="EUR")])
    assert exports.totals_of(ledger.rows()).cost == {}
