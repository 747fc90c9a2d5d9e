"""From a part of the bill to the requests that did it."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row
from labkit.request import InvalidValue
from labkit.spending import FACTORS, Slice, attribute, explain_change

LIST = self_defined("m", input="2", output="8", cached="0.5")
LINE = Row(
    provider="lab", tenant="north", feature="desk", request_model="m",
    input_tokens=1000, cached_tokens=400, output_tokens=100,
)  # fmt: skip


def booked(row, price=LIST):
    return replace(row, cost=price_request(row.usage, price).total)


def day(name, changed=(), price=LIST):
    """Ten requests, of which some are changed: {number: what}."""
    rows = [replace(LINE, idempotency_key=f"{name}-{n}", attempt_id=f"{name}-{n}", prompt_version=name) for n in range(10)]
    for number, what in dict(changed).items():
        rows[number] = replace(rows[number], **what)
    return [booked(row, price) for row in rows]


def explained(before, after):
    ledger = Ledger(":memory:")
    ledger.extend([*before, *after])
    slices = [Slice(ledger, only={"prompt_version": version}, prices={"*": LIST}) for version in ("v1", "v2")]
    return explain_change(*slices, by=("feature",))


@pytest.mark.parametrize(
    ("changed", "factor"),
    [
        ({"input_tokens": 9000, "cached_tokens": 3600}, "tokens in"),
        ({"output_tokens": 5000}, "tokens out"),
        ({"cached_tokens": 0}, "cache hits"),
    ],
)
def test_the_changed_requests_come_first_and_their_excess_is_the_part(changed, factor):
    found = explained(day("v1"), day("v2", {3: changed, 7: changed}))
    table = found.behind(factor, limit=10)
    assert table["request"].tolist()[:2] == ["v2-3", "v2-7"]
    assert table["period"].tolist() == ["after"] * 10
    assert set(table["organisation"]) == {"north"}
    assert float(sum(table["excess"])) == pytest.approx(float(found.parts(9)[factor]), abs=1e-5)
    assert table["excess"].tolist()[2:] == [0] * 8
    assert table["cost"].tolist()[0] == booked(replace(LINE, **changed)).cost


def test_a_part_that_falls_begins_with_those_that_saved_most():
    found = explained(day("v1"), day("v2", {4: {"output_tokens": 10}, 5: {"output_tokens": 1}}))
    table = found.behind("tokens out", limit=2)
    assert table["request"].tolist() == ["v2-5", "v2-4"]
    assert table["excess"].tolist() == [Decimal("-0.000792"), Decimal("-0.00072")]


def test_retries_are_behind_retries_and_a_receipt_shows_each_attempt():
    again = [replace(row, attempt=2, attempt_id=f"again-{row.attempt_id}") for row in day("v2")[6:7]]
    found = explained(day("v1"), [*day("v2"), *again])
    table = found.behind("retries", limit=1)
    assert table[["request", "attempts"]].values.tolist() == [["v2-6", 2]]
    only = {"organisation": "north", "request": "v2-6"}
    receipt = attribute(replace(found.slices[1], only=only), ["attempt"])
    assert receipt[["attempt", "cost"]].values.tolist() == [[1, booked(LINE).cost], [2, booked(LINE).cost]]


def test_an_unpriced_and_a_dearer_request_are_found_where_they_are():
    dear = self_defined("m", input="4", output="16", cached="1")
    dearer = replace(booked(replace(LINE, idempotency_key="d", prompt_version="v2"), dear))
    found = explained(day("v1"), [*day("v2")[1:], dearer])
    assert found.behind("unsplit", 1)["request"].tolist() == ["d"]
    unknown = replace(LINE, idempotency_key="u", prompt_version="v2")
    found = explained(day("v1"), [*day("v2")[1:], unknown])
    table = found.behind("unpriced", 1)
    assert table[["request", "cost"]].values.tolist() == [["u", Decimal(0)]]


def test_what_came_and_what_went_is_behind_volume_and_mix():
    found = explained(day("v1")[:1], [replace(row, feature="new") for row in day("v2")[:2]])
    table = found.behind("volume")
    cost = booked(LINE).cost
    assert sorted(table[["period", "feature", "request"]].values.tolist()) == [
        ["after", "new", "v2-0"], ["after", "new", "v2-1"], ["before", "desk", "v1-0"],
    ]  # fmt: skip
    assert sum(table["excess"]) == cost == found.after - found.before


def test_a_new_segment_has_nothing_to_be_longer_than():
    """Its long answers are mix: they are not behind longer answers, however long they are."""
    came = [replace(row, feature="new", idempotency_key=f"n{n}", attempt_id=f"n{n}") for n, row in
            enumerate(day("v2", {0: {"output_tokens": 90_000}})[:2])]  # fmt: skip
    found = explained(day("v1"), [*day("v2", {3: {"output_tokens": 200}}), *came])
    table = found.behind("tokens out", 30).set_index("request")["excess"]
    assert table.index[0] == "v2-3"
    assert table[["n0", "n1"]].tolist() == [0, 0]


def test_over_all_requests_the_excess_is_the_part_where_only_one_factor_changed():
    rng = np.random.default_rng(7)
    lengths = {n: {"output_tokens": int(rng.integers(1, 900))} for n in range(10)}
    found = explained(day("v1"), day("v2", lengths))
    ((_, parts),) = found.exact.items()
    wanted = {name: part for name, part in zip(FACTORS, parts, strict=True) if part}
    assert wanted == {"tokens out": Fraction(found.after) - Fraction(found.before)}
    assert float(sum(found.behind("tokens out", 50)["excess"])) == pytest.approx(float(wanted["tokens out"]), abs=1e-5)


def test_a_factor_that_there_is_none_of_and_an_odd_limit_are_refused():
    found = explained(day("v1"), day("v2"))
    with pytest.raises(InvalidValue, match=r"'weather'.*volume"):
        found.behind("weather")
    with pytest.raises(InvalidValue, match="limit is 0"):
        found.behind("mix", 0)
    assert explained([], []).behind("price").empty
