"""The catalogue of machines, and how many of them a peak needs."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.cost import Scenario, cost_per_mtok, elasticity, hosted_month, hosts, machines_for, self_defined, tornado
from labkit.cost.calculator import api_month
from labkit.request import InvalidValue

tenths = st.integers(0, 10**7).map(lambda n: Decimal(n) / 10)


@given(tenths, tenths.filter(bool), st.sampled_from([Decimal(0), Decimal("0.2"), Decimal("0.25")]))
def test_machines_are_the_exact_ceiling_of_peak_over_rate(peak: Decimal, rate: Decimal, headroom: Decimal) -> None:
    exact = ceil(Fraction(peak) * (1 + Fraction(headroom)) / Fraction(rate))
    assert machines_for(peak, rate, headroom) == machines_for(float(peak), float(rate), float(headroom)) == max(1, exact)


def test_a_peak_that_fits_exactly_rents_no_machine_too_many() -> None:
    # 86,400 requests a day of 1 token, 1.1 attempts each, peak 3: 3.3 tokens/s. In floats (1 + 0.1) · 3 is above 3.3.
    assert (1 + 0.1) * 3 > 3.3
    tight = Scenario(
        users=86_400, requests_per_user=1, input_tokens=0, output_tokens=1, retry_rate=0.1, peak_factor=3.0,
        host_tokens_per_second=3.3,
    )  # fmt: skip
    machine = hosts()[tight.host]
    assert hosted_month(tight).total == machine.usd_per_hour * 24 * tight.days


@given(tenths.filter(bool), st.integers(1, 100))
def test_doubling_the_rate_halves_the_price_of_a_token_and_so_does_doubling_utilisation(rate: Decimal, percent: int) -> None:
    one = cost_per_mtok(Decimal("3.6"), float(rate), percent / 200)
    assert cost_per_mtok(Decimal("3.6"), float(2 * rate), percent / 200) * 2 == pytest.approx(one)
    assert cost_per_mtok(Decimal("3.6"), float(rate), percent / 100) * 2 == pytest.approx(one)


@pytest.mark.parametrize(
    ("peak", "rate", "headroom"),
    [(float("nan"), 1, 0), (-1, 1, 0), (float("inf"), 1, 0), (1, 0, 0), (1, float("inf"), 0), (1, 1, -0.1)],
)
def test_a_peak_or_rate_that_cannot_be_is_refused(peak: float, rate: float, headroom: float) -> None:
    with pytest.raises(InvalidValue, match=r"tokens_per_second|peak"):
        machines_for(peak, rate, headroom)


@pytest.mark.parametrize("dollars", [4.92, Decimal("-1"), Decimal("NaN"), "4.92"])
def test_money_for_an_hour_is_a_decimal_from_zero(dollars: object) -> None:
    with pytest.raises(InvalidValue, match="usd_per_hour"):
        cost_per_mtok(dollars, 100)  # type: ignore[arg-type]


ROW = {"key": "mine", "name": "Mine", "accelerators": 1, "usd_per_hour": "1.5", "source": "invoice", "as_of": "2026-11"}


def test_a_machine_of_ones_own_is_read_from_an_edited_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps({"hosts": [ROW]}))
    assert hosts(file)["mine"].usd_per_hour == Decimal("1.5")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "hosts.json must be JSON"),
        ("[]", "hosts.json must be JSON"),
        ('{"machines": []}', "hosts.json must be JSON"),
        (json.dumps({"hosts": [{**ROW, "usd_per_hour": "cheap"}]}), "mine"),
        (json.dumps({"hosts": [{**ROW, "usd_per_hour": "-1"}]}), "mine"),
        (json.dumps({"hosts": [{k: v for k, v in ROW.items() if k != "source"}]}), "source"),
        (json.dumps({"hosts": [{**ROW, "colour": "red"}]}), "colour"),
    ],
)
def test_a_catalogue_edited_badly_names_the_entry(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(content)
    with pytest.raises(InvalidValue, match=named):
        hosts(file)


def test_elasticity_at_the_edge_of_a_setting_is_one_sided_and_right() -> None:
    # Fully cached at half price: cost = c · (1 − s/2) of the input, so the elasticity at s = 1 is −s/2 / (1 − s/2) = −1.
    price = self_defined("m", "1", "0", cached="0.5")
    edge = Scenario(input_tokens=1_000_000, cached_share=1.0)
    assert elasticity(edge, lambda s: api_month(s, price).total, "cached_share") == pytest.approx(-1)


@pytest.mark.parametrize("name", ["colour", "models"])
def test_the_sensitivity_to_something_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=f"no number '{name}' to move"):
        elasticity(Scenario(), lambda s: Decimal(s.users), name)
    with pytest.raises(InvalidValue, match=f"no number '{name}' to move"):
        tornado(Scenario(), lambda s: Decimal(s.users), ("users", name))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"users": "many"}, "users is 'many'; give a whole number from 0 to 1e"),
        ({"days": 1.5}, "days is 1.5; give a whole number from 1 to 31"),
        ({"peak_factor": "x"}, "peak_factor is 'x'; give a number from 1 to 100"),
        ({"models": "openai/gpt-5-mini"}, "models is 'openai"),
        ({"models": ("a,b",)}, "without commas"),
        ({"models": ()}, "models is empty"),
    ],
)
def test_a_setting_of_the_wrong_kind_says_what_is_allowed(setting: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        Scenario(**setting)  # type: ignore[arg-type]


@given(st.text(min_size=1), st.lists(st.text(min_size=1).filter(lambda name: "," not in name), min_size=1, max_size=4))
def test_any_name_of_a_host_or_model_survives_an_address_and_a_file(key: str, models: list[str]) -> None:
    scenario = Scenario(host=key, models=tuple(models))
    assert Scenario.from_query(scenario.to_query()) == scenario
    assert Scenario.from_json(scenario.to_json()) == scenario
