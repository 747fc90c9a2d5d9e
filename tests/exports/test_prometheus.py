"""The metrics against the ledger and prometheus_client's parser; the increase of counters against hand-made cases."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from labkit.exports import (
    ExportError,
    LedgerMetrics,
    TooManySeries,
    exposition,
    increase,
    totals_of_exposition,
)
from labkit.ledger import Row
from labkit.request import InvalidValue
from tests.exports.ledgers import ledger_of


def values(text, name):
    """{labels as a frozenset: value} of the samples called `name`."""
    families = text_string_to_metric_families(text)
    return {frozenset(s.labels.items()): s.value for f in families for s in f.samples if s.name == name}


def row(**fields):
    return Row(provider="lab", tenant="north", feature="search", request_model="small", **fields)


LABELS = frozenset({"tenant": "north", "feature": "search", "model": "small", "outcome": "completed"}.items())


def test_each_metric_of_a_small_ledger():
    ledger = ledger_of(
        [
            row(
                cost=Decimal("0.10"), input_tokens=10, cached_tokens=4, output_tokens=3, sent=1.0, first_token=1.3, done=2.0
            ),
            row(cost=Decimal("0.20"), sent=1.0, done=41.0),
            row(cost=Decimal("5"), currency="EUR"),
            row(),
        ]
    )
    text = exposition(LedgerMetrics(ledger))
    assert values(text, "labkit_cost_usd_total") == {LABELS: pytest.approx(0.3)}
    assert values(text, "labkit_attempts_total") == {LABELS: 4}
    assert values(text, "labkit_unpriced_attempts_total") == {LABELS: 1}
    assert values(text, "labkit_other_currency_attempts_total") == {LABELS: 1}
    tokens = values(text, "labkit_tokens_total")
    assert {dict(labels)["kind"]: count for labels, count in tokens.items()} == {
        "fresh_input": 6, "cached_input": 4, "cache_write": 0, "visible_output": 3, "reasoning": 0,
    }  # fmt: skip
    seconds = {dict(labels)["le"]: count for labels, count in values(text, "labkit_attempt_seconds_bucket").items()}
    assert (seconds["0.5"], seconds["1.0"], seconds["30.0"], seconds["60.0"], seconds["+Inf"]) == (0, 1, 1, 2, 2)
    assert values(text, "labkit_attempt_seconds_sum") == {LABELS: 41}
    assert values(text, "labkit_ttft_seconds_count") == {LABELS: 1}


def test_a_request_with_three_attempts_is_one_request():
    again = [row(idempotency_key="k", attempt=1, outcome="failed"), row(idempotency_key="k", attempt=2)]
    shadow = row(idempotency_key="s", shadow=True)
    text = exposition(LedgerMetrics(ledger_of([*again, shadow, row(), row()])))
    assert sum(values(text, "labkit_requests_total").values()) == 3
    assert sum(values(text, "labkit_attempts_total").values()) == 5


def test_a_scrape_reads_what_is_new_and_a_restarted_exporter_goes_on():
    ledger = ledger_of([row(cost=Decimal(1), idempotency_key="k")])
    metrics = LedgerMetrics(ledger)
    seen = [sum(values(exposition(metrics), "labkit_cost_usd_total").values())]
    ledger.extend([row(cost=Decimal(2), idempotency_key="k"), row(cost=Decimal(4))])
    seen.append(sum(values(exposition(metrics), "labkit_cost_usd_total").values()))
    restarted = LedgerMetrics(ledger)
    assert exposition(restarted) == exposition(metrics)
    seen.append(sum(values(exposition(restarted), "labkit_cost_usd_total").values()))
    assert seen == [1, 7, 7]
    assert increase(seen) == 6


def test_a_ledger_is_read_in_portions_and_none_is_left_out(monkeypatch):
    monkeypatch.setattr("labkit.exports.prometheus._PORTION", 3)
    ledger = ledger_of([row(cost=Decimal(1), input_tokens=n, output_tokens=0) for n in range(10)])
    text = exposition(LedgerMetrics(ledger))
    assert values(text, "labkit_ledger_attempts") == {frozenset(): 10}
    assert sum(values(text, "labkit_tokens_total").values()) == 45
    assert values(text, "labkit_cost_usd_total") == {LABELS: 10}


def test_too_many_series_are_refused_and_nothing_is_counted_twice():
    ledger = ledger_of([Row(provider="lab", tenant=f"t{n}") for n in range(3)])
    metrics = LedgerMetrics(ledger, max_series=3)
    before = exposition(metrics)
    ledger.append(Row(provider="lab", tenant="t3"))
    with pytest.raises(TooManySeries, match=r"4 combinations.*max_series=3.*'tenant'"):
        exposition(metrics)
    with pytest.raises(TooManySeries):
        exposition(metrics)
    assert sum(values(before, "labkit_attempts_total").values()) == 3
    assert sum(values(exposition(LedgerMetrics(ledger)), "labkit_attempts_total").values()) == 4


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, None])
def test_a_bound_that_is_none(bound):
    with pytest.raises(InvalidValue, match="max_series"):
        LedgerMetrics(ledger_of([]), max_series=bound)


@pytest.mark.parametrize(
    ("samples", "grew"),
    [
        ([], 0),
        ([7], 0),
        ([0, 5, 10], 10),
        ([10, 10, 10], 0),
        ([5, 10, 3, 4], 9),  # 5, then 3 from the restart on, then 1
        ([10, 0, 0], 0),
        ([10, 4, 2], 6),
        ([0, 8, 8, 1, 9, 2], 19),
    ],
)
def test_the_increase_of_counters_that_were_reset(samples, grew):
    assert increase(samples) == grew


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30))
def test_no_dollar_is_lost_where_an_engine_restarts_right_after_a_sample(steps):
    # A reset is invisible where the new count reaches the old one; no rule over samples can see that, so it is left out.
    samples, value, truth = [0], 0, 0
    for more, restart in steps:
        value = more if restart and more < value else value + more
        samples.append(value)
        truth += more
    assert increase(samples) == truth
    assert increase(samples) >= max(samples[-1] - samples[0], 0)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_what_no_counter_can_have_is_refused(value):
    with pytest.raises(InvalidValue, match="a counter cannot be"):
        increase([0.0, value])


def test_text_of_another_kind_is_refused():
    with pytest.raises(ExportError, match="no exposition of a ledger"):
        totals_of_exposition('labkit_tokens_total{tenant="a"} 4\n')
