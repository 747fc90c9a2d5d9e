"""The month, its sensitivity, and the ways a scenario travels."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import (
    BOUNDS,
    Rates,
    Scenario,
    UnknownPrice,
    api_month,
    cost_per_mtok,
    elasticity,
    host,
    hosted_month,
    hosts,
    machines_for,
    month,
    self_defined,
    tornado,
)
from labkit.request import InvalidValue

PRICE = self_defined("m", "1", "4", cached="0.1")
BASE = Scenario(users=1000, requests_per_user=2, input_tokens=1000, output_tokens=100, retry_rate=0.0, days=30)


def _total(scenario: Scenario) -> Decimal:
    return api_month(scenario, PRICE).total


def test_a_month_worked_by_hand() -> None:
    # 60,000 calls: 60 Mtok of input at 1 USD, 6 Mtok of output at 4 USD.
    assert _total(BASE) == 60 + 24
    assert api_month(BASE, PRICE).per_thousand_requests == Decimal("1.4")
    # Half of the input cached at a tenth: 30 + 3 + 24. Half an extra attempt: times 1.5.
    assert _total(replace(BASE, cached_share=0.5)) == 57
    assert _total(replace(BASE, retry_rate=0.5)) == 126


def test_shadow_calls_and_retries_are_paid_for_but_not_counted_as_requests() -> None:
    heavy = api_month(replace(BASE, retry_rate=0.25, shadow_share=0.5), PRICE)
    assert heavy.total == Decimal("1.75") * _total(BASE)
    assert heavy.requests == 60_000


def test_reasoning_moves_money_between_kinds_and_leaves_the_total() -> None:
    thinking = api_month(replace(BASE, reasoning_share=0.25), PRICE)
    assert thinking.total == _total(BASE)
    assert thinking.parts()["reasoning"] == 6
    assert thinking.parts()["visible_output"] == 18


def test_the_batch_share_pays_the_batch_price_and_the_rest_the_standard_one() -> None:
    half_price = replace(PRICE, batch=Rates(Decimal("0.5"), Decimal(2), Decimal("0.05"), Decimal("0.5")))
    for share in (0.0, 0.25, 1.0):
        scenario = replace(BASE, batch_share=share)
        assert api_month(scenario, half_price).total == 84 * (1 - Decimal(str(share)) / 2)
        # Nobody is promised a discount that the provider does not list.
        assert _total(scenario) == 84
    assert "no batch price" in api_month(replace(BASE, batch_share=0.5), PRICE).note
    assert "no batch price" not in api_month(replace(BASE, batch_share=0.5), half_price).note


def test_a_prompt_above_a_tier_costs_the_tiers_rate_all_month() -> None:
    high = Rates(Decimal(2), Decimal(8), Decimal("0.2"), Decimal(2))
    assert api_month(BASE, replace(PRICE, tiers=((999, high),))).total == 2 * 84
    assert api_month(BASE, replace(PRICE, tiers=((1000, high),))).total == 84


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_bill_is_linear_in_users(users: int, times: int) -> None:
    assert _total(replace(BASE, users=users * times)) == times * _total(replace(BASE, users=users))


def test_the_tornado_is_sorted_and_each_swing_is_the_cost_recomputed() -> None:
    swings = tornado(BASE, _total)
    assert [s.width for s in swings] == sorted((s.width for s in swings), reverse=True)
    for s in swings:
        assert s.cost_low == _total(replace(BASE, **{s.name: s.low}))
        assert s.cost_high == _total(replace(BASE, **{s.name: s.high}))
    users = next(s for s in swings if s.name == "users")
    assert users.width == _total(BASE) / 2  # ±25 % of a proportional cost


@pytest.mark.parametrize(
    ("name", "value", "low", "high"),
    [
        ("users", 1_000, 800, 1_200),
        ("retry_rate", 0.5, 0.4, 0.6),  # a rate has no end above, so it moves as far up as down
        ("cached_share", 0.0, 0.0, 0.2),  # a lever that nobody has pulled yet
        ("cached_share", 0.5, 0.4, 0.6),
        ("batch_share", 0.9, 0.72, 0.92),
        ("shadow_share", 1.0, 0.8, 1.0),  # nothing is left to pull
    ],
)
def test_every_setting_of_the_tornado_goes_the_same_part_of_its_way(
    name: str, value: float, low: float, high: float
) -> None:
    (swing,) = tornado(replace(BASE, **{name: value}), _total, (name,), by=0.2)
    assert (swing.low, swing.high) == (pytest.approx(low), pytest.approx(high))


def test_elasticities_of_a_closed_form() -> None:
    assert elasticity(BASE, _total, "users") == pytest.approx(1)
    assert elasticity(BASE, _total, "input_tokens") == pytest.approx(60 / 84)
    assert elasticity(BASE, _total, "output_tokens") == pytest.approx(24 / 84)


def test_machines_are_rented_for_the_peak() -> None:
    # 60,000 calls a month × 100 tokens over 30 days is 2.31 output tokens/s; a peak of 3 makes 6.94.
    scenario = replace(BASE, peak_factor=3.0, host_tokens_per_second=3.0)
    assert hosted_month(scenario).total == 3 * host(scenario.host).usd_per_hour * 24 * 30
    assert machines_for(6.94, 3.0) == 3


def test_a_machines_price_per_token_worked_by_hand() -> None:
    # 3.6 USD an hour at 1,000 tokens/s is 3.6 Mtok an hour: a dollar per million; half idle, two.
    assert cost_per_mtok(Decimal("3.6"), 1000) == 1
    assert cost_per_mtok(Decimal("3.6"), 1000, 0.5) == 2


@pytest.mark.parametrize(("rate", "share"), [(0, 1), (-1, 1), (float("nan"), 1), (10, 0), (10, 1.1)])
def test_an_impossible_rate_or_utilisation_is_refused(rate: float, share: float) -> None:
    with pytest.raises(InvalidValue):
        cost_per_mtok(Decimal(1), rate, share)


def test_every_host_says_where_and_when_its_price_was_read() -> None:
    assert len(hosts()) >= 5
    for machine in hosts().values():
        assert machine.usd_per_hour > 0
        assert machine.source
        assert machine.as_of


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(UnknownPrice, match="h1000"):
        host("h1000")


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    values: dict[str, object] = {}
    for name in BOUNDS:
        low, high, _ = BOUNDS[name]
        whole = isinstance(getattr(Scenario(), name), int)
        values[name] = draw(st.integers(int(low), int(high)) if whole else st.floats(low, high))
    models = draw(st.lists(st.sampled_from(["openai/gpt-5-mini", "google/gemini-2.5-pro"]), min_size=1, max_size=3))
    return Scenario(**values, models=tuple(models))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(scenarios())
def test_settings_survive_a_file_and_an_address(scenario: Scenario) -> None:
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert Scenario.from_query("?" + scenario.to_query()) == scenario


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"users": -1}, "users"),
        ({"users": 1.5}, "users"),
        ({"users": True}, "users"),
        ({"cached_share": 1.2}, "cached_share"),
        ({"retry_rate": float("nan")}, "retry_rate"),
        ({"days": 32}, "days"),
        ({"models": []}, "models"),
        ({"models": 5}, "models"),
        ({"host": 5}, "host"),
        ({"colour": "red"}, "colour"),
        ({"users": "many"}, "users"),
    ],
)
def test_a_bad_setting_is_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        Scenario.from_mapping(given)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_file_that_holds_no_settings_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="settings"):
        Scenario.from_json(text)


def test_a_saved_scenario_is_plain_json(tmp_path) -> None:
    path = tmp_path / "scenario.json"
    BASE.save(path)
    assert json.loads(path.read_text())["users"] == 1000


def test_a_month_compares_every_model_and_the_machine() -> None:
    rows = month(Scenario())
    assert [row.name for row in rows] == [*Scenario().models, "self-hosted/h100"]
    assert all(sum(row.parts().values()) == row.total for row in rows)
