from collections import defaultdict
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row, spend, tokens, waste
from labkit.request import TOKEN_KINDS, InvalidValue
from labkit.spending import DIMENSIONS, Slice, attribute
from tests.spending.books import PRICES, SMALL, rows

COSTS = [f"{kind}_cost" for kind in TOKEN_KINDS]


@given(st.lists(rows(), max_size=25), st.lists(st.sampled_from(sorted(DIMENSIONS)), max_size=3, unique=True))
@settings(max_examples=60, deadline=None)
def test_whatever_the_dimensions_the_parts_are_the_bill(given_rows, by):
    with localcontext(prec=60), Ledger(":memory:") as ledger:
        ledger.extend(given_rows)
        table = attribute(Slice(ledger, prices=PRICES), by)
        for currency in ("USD", "EUR"):
            part = table[table["currency"] == currency]
            whole = spend(ledger)
            whole = whole[whole["labkit.currency"] == currency]
            assert sum(part["cost"], Decimal(0)) == sum(whole["labkit.cost"], Decimal(0))
            for name in ("attempts", "unpriced"):
                assert part[name].sum() == whole[name].sum()
            lost = waste(ledger)
            for reason in ("failed", "cancelled", "shadow", "superseded"):
                known = lost[(lost["reason"] == reason) & (lost["labkit.currency"] == currency)]["labkit.cost"]
                assert sum(part[f"wasted_{reason}"], Decimal(0)) == sum(known, Decimal(0))
        assert {kind: table[kind].sum() for kind in TOKEN_KINDS} == tokens(ledger).to_dict()
        assert (table[[*COSTS, "unsplit_cost"]].sum(axis=1) == table["cost"]).all()


@given(st.lists(rows(), max_size=25))
@settings(max_examples=60, deadline=None)
def test_each_kind_of_token_costs_what_the_price_list_says_of_each_attempt(given_rows):
    wanted = defaultdict(Decimal)
    for row in given_rows:
        price = PRICES.get(row.request_model) or PRICES.get(row.response_model)
        listed = None if price is None or row.currency != "USD" else price_request(row.usage, price)
        if listed is not None and row.cost == listed.total and "response-cache" not in row.route:
            for kind in TOKEN_KINDS:
                wanted[row.feature, f"{kind}_cost"] += getattr(listed, kind)
        else:
            wanted[row.feature, "unsplit_cost"] += row.cost or 0
    with localcontext(prec=60), Ledger(":memory:") as ledger:
        ledger.extend(given_rows)
        table = attribute(Slice(ledger, prices=PRICES), ["feature"])
        found = {(f, name): sum(part[name]) for f, part in table.groupby("feature") for name in [*COSTS, "unsplit_cost"]}
    assert {key: value for key, value in found.items() if value} == {key: value for key, value in wanted.items() if value}


def test_requests_are_counted_once_and_the_cache_that_answered_is_named():
    with Ledger(":memory:") as ledger:
        ledger.extend([
            Row(provider="lab", idempotency_key="k", outcome="failed", request_model="small"),
            Row(provider="lab", idempotency_key="k", attempt=2, request_model="large"),
            Row(provider="lab", idempotency_key="k", tenant="other", cached_tokens=5, input_tokens=9),
            Row(provider="lab", cost=Decimal(0), route=("semantic-cache:x",)),
            Row(provider="lab", attempt=2),
        ])  # fmt: skip
        assert attribute(Slice(ledger), ())[["requests", "attempts", "retries", "served", "unpriced"]].values.tolist() == [
            [3, 5, 2, 1, 4]
        ]
        table = attribute(Slice(ledger), ["cache_layer"])
        assert dict(table[["cache_layer", "attempts"]].values.tolist()) == {"": 3, "provider": 1, "semantic-cache": 1}


def test_a_slice_takes_its_period_and_its_values_only():
    with Ledger(":memory:") as ledger:
        ledger.extend(
            Row(provider="lab", cost=Decimal(1), started_unix=at, prompt_version=version)
            for at, version in ((10.0, "v1"), (20.0, "v2"), (30.0, "v2"))
        )
        assert attribute(Slice(ledger, 10, 30), ())["cost"].tolist() == [Decimal(2)]
        assert attribute(Slice(ledger, 10, 30, {"prompt_version": ["v2", "v3"]}), ())["cost"].tolist() == [Decimal(1)]
        assert attribute(Slice(ledger, until=5), ()).empty


def test_the_price_of_the_hour_is_the_one_that_counts():
    from dataclasses import replace
    from datetime import time

    night = self_defined("small", input="0.1", output="1")
    price = replace(SMALL, day=((time(0), night), (time(8), SMALL)))
    with Ledger(":memory:") as ledger:
        for at, list_now in ((8 * 3600 - 1.0, night), (8 * 3600.0, SMALL)):
            row = Row(provider="lab", input_tokens=100, output_tokens=10, started_unix=at)
            ledger.append(replace(row, cost=price_request(row.usage, list_now).total))
        table = attribute(Slice(ledger, prices={"*": price}), ())
        assert table["unsplit_cost"].tolist() == [0]
        assert table["fresh_input_cost"].tolist() == [Decimal("0.000035")]


def test_an_unknown_total_is_at_least_its_known_parts():
    """A stream that was cut: nobody said how much was read, but 40 tokens came from a cache."""
    with Ledger(":memory:") as ledger:
        ledger.extend([Row(provider="lab", cached_tokens=40, output_tokens=1), Row(provider="lab", input_tokens=100)])
        table = attribute(Slice(ledger), ())
    assert table[["fresh_input", "cached_input", "visible_output"]].values.tolist() == [[100, 40, 1]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"only": {"team": "x"}},
        {"only": {"user": None}},
        {"prices": {"m": "2 USD"}},
        {"since": 2.0, "until": 2.0},
        {"since": float("nan")},
    ],
)
def test_a_slice_that_cannot_be_is_refused(wrong):
    with Ledger(":memory:") as ledger, pytest.raises(InvalidValue):
        Slice(ledger, **wrong)
    with Ledger(":memory:") as ledger, pytest.raises(InvalidValue, match="organisation"):
        attribute(Slice(ledger), ["tenant"])
