"""The calculator's widget, driven as its controls drive it, beside the arithmetic it draws."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from labkit.cost import Scenario, api_month, month, price_named
from labkit.workbook.calculator import Dashboard, dashboard, month_figure, settings_from_url, tornado_figure
from labkit.workbook.charts import MIME, spec


def drawn(board: Dashboard) -> list[dict[str, Any]]:
    """Rows of the month's chart, as the browser gets them."""
    return list(board._month._output.outputs[0]["data"][MIME]["data"]["values"])


def totals(board: Dashboard) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in drawn(board):
        found[row["model"]] = found.get(row["model"], 0.0) + row["usd"]
    return found


def test_moving_a_control_draws_the_month_that_cost_computes(tmp_path: Path) -> None:
    board = Dashboard(Scenario(), tmp_path / "s.json")
    before = totals(board)
    board._controls["users"].value = 200_000
    expected = {row.name: float(row.total) for row in month(Scenario(users=200_000)) if row.total}
    assert totals(board) == pytest.approx(expected)
    assert totals(board) != before
    assert board.scenario.users == 200_000


def test_a_setting_that_makes_no_sense_leaves_the_last_good_charts_and_says_why(tmp_path: Path) -> None:
    board = Dashboard(Scenario(), tmp_path / "s.json")
    model = board._controls["model0"]
    model.options = (*model.options, "nobody/nothing")  # which moves it to the first one
    before = totals(board)
    model.value = "nobody/nothing"
    assert totals(board) == before
    assert "role='alert'" in board._message.value
    assert "nobody" in board._message.value
    model.value = Scenario().models[0]
    assert board._message.value == ""


def test_settings_are_saved_loaded_and_reset(tmp_path: Path) -> None:
    board = Dashboard(Scenario(users=5_000, cached_share=0.25), tmp_path / "s.json")
    board._save(None)
    other = Dashboard(Scenario(), tmp_path / "s.json")
    other._load(None)
    assert other.scenario == board.scenario
    assert other._controls["users"].value == 5_000
    assert totals(other) == totals(board)
    (tmp_path / "s.json").write_text("{not json")
    other._load(None)
    assert "role='alert'" in other._message.value
    assert other.scenario == board.scenario


def test_a_month_costs_in_the_chart_what_it_costs_in_the_arithmetic() -> None:
    rows = month(Scenario(cached_share=0.5, reasoning_share=0.25, batch_share=0.5))
    figure = month_figure(rows)
    bars = spec(figure)["data"]["values"]
    for row in rows:
        assert f"{row.name} {row.total:,.0f} dollars a month" in figure.alt
        assert sum(bar["usd"] for bar in bars if bar["model"] == row.name) == pytest.approx(float(row.total))
        assert row.note in figure.source
    assert {bar["kind"] for bar in bars} >= {"fresh input", "cached input", "visible output", "reasoning", "machines"}


def test_a_model_named_twice_is_drawn_once(tmp_path: Path) -> None:
    board = Dashboard(Scenario(), tmp_path / "s.json")
    board._controls["model1"].value = board._controls["model0"].value
    once = {row.name: float(row.total) for row in month(board.scenario)}
    assert totals(board) == pytest.approx(once)


def test_the_tornado_draws_the_swings_that_cost_computes() -> None:
    scenario = Scenario(cached_share=0.4)
    price = price_named(scenario.models[0])
    base = api_month(scenario, price).total
    figure = tornado_figure(scenario)
    rows = spec(figure)["data"]["values"]
    users = {row["end"]: row["usd"] for row in rows if row["setting"] == "users a day"}
    # A month is proportional to its users, so ±25% of them is ±25% of it.
    assert users == pytest.approx({"lower": float(-base / 4), "higher": float(base / 4)})
    cached = {row["end"]: row["usd"] for row in rows if row["setting"] == "cached share"}
    # Of 0.4: a quarter less, and a quarter of the 0.6 that are left.
    for end, share in (("lower", 0.3), ("higher", 0.55)):
        moved = api_month(replace(scenario, cached_share=share), price).total
        assert cached[end] == pytest.approx(float(moved - base))
    assert f"users a day: {-base / 4:+,.0f} to {base / 4:+,.0f}" in figure.alt
    assert "25% of its value" in figure.source


def test_a_scenario_beyond_the_sliders_and_with_other_models_is_shown_whole(tmp_path: Path) -> None:
    wide = Scenario(users=5_000_000, input_tokens=90_000, models=("openai/gpt-5-mini", "mistral/mistral-small-latest"))
    wide.save(tmp_path / "s.json")
    board = Dashboard(Scenario(), tmp_path / "s.json")
    board._load(None)
    assert board._message.value == ""
    assert board.scenario == wide
    board._controls["days"].value = 10  # moving one control must not take the others back into their usual range
    assert board.scenario == replace(wide, days=10)
    assert {row.name: float(row.total) for row in month(board.scenario)} == pytest.approx(totals(board))


def test_a_value_between_the_sliders_steps_is_held_exactly(tmp_path: Path) -> None:
    # Two sevenths is a share as it comes out of a measurement. A browser shows a slider's nearest step, and reports that.
    odd = Scenario(users=4_321, requests_per_user=3.7, cached_share=2 / 7, peak_factor=2.25)
    board = Dashboard(odd, tmp_path / "s.json")
    for name in ("users", "requests_per_user", "cached_share", "peak_factor"):
        slider = board._controls[name]
        slider.value = slider.min + round((slider.value - slider.min) / slider.step) * slider.step
    assert board.scenario == odd
    board._controls["cached_share"].value += board._controls["cached_share"].step
    assert board.scenario.cached_share == pytest.approx(2 / 7, abs=2e-4)
    assert board.scenario.cached_share != odd.cached_share


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_models_has_controls(count: int, tmp_path: Path) -> None:
    names = ("openai/gpt-5-mini", "openai/gpt-5-nano", "openai/gpt-5", "anthropic/claude-haiku-4-5")[:count]
    board = Dashboard(Scenario(models=names), tmp_path / "s.json")
    board._controls["users"].value = 7_000
    assert board.scenario == Scenario(models=names, users=7_000)


def test_a_file_that_is_no_text_is_refused_in_the_widget(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_bytes(b"\xff\xfe\x00")
    board = Dashboard(Scenario(users=3_000), tmp_path / "s.json")
    board._load(None)
    assert "role='alert'" in board._message.value
    assert board.scenario == Scenario(users=3_000)


def test_the_address_sets_the_scenario_and_the_servers_own_parameters_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUERY_STRING", "users=1234&token=abc&voila-template=lab&theme=dark&cached_share=0.5")
    assert settings_from_url() == (Scenario(users=1234, cached_share=0.5), ())
    monkeypatch.delenv("QUERY_STRING")
    assert settings_from_url() == (Scenario(), ())


def test_what_a_dashboard_shares_comes_back_from_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = Scenario(users=77_000, batch_share=0.5, models=("openai/gpt-5",), host="a100")
    board = Dashboard(shared, tmp_path / "s.json")
    query = unescape(board._link.value.partition(">?")[2].partition("</code>")[0])
    monkeypatch.setenv("QUERY_STRING", query)
    assert settings_from_url() == (shared, ())


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ("userz=1", "did you mean 'users'?"),
        ("cache_share=0.1", "did you mean 'cached_share'?"),
        ("utm_source=mail", "'utm_source'"),
        ("output_tokens=many", "output_tokens is 'many'; give a whole number"),
        ("retry_rate=99", "retry_rate is 99"),
        ("models=nobody/nothing", "nobody"),
        ("host=abacus", "abacus"),
    ],
)
def test_what_the_address_gets_wrong_is_named_and_the_rest_applied(
    bad: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUERY_STRING", f"users=1234&{bad}&days=10")
    scenario, notes = settings_from_url()
    assert scenario == Scenario(users=1234, days=10)
    assert len(notes) == 1
    assert note in notes[0]
    alert = unescape(dashboard().children[0].value)
    assert "role='alert'" in alert
    assert notes[0] in alert
