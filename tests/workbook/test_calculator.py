"""The calculator's widget, driven as its controls drive it, beside the arithmetic it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit.cost import Scenario, month
from labkit.request import InvalidRequest
from labkit.workbook.calculator import Dashboard, dashboard, month_figure, settings_from_url, tornado_figure
from labkit.workbook.charts import MIME


def drawn(board: Dashboard) -> list[dict[str, Any]]:
    """Rows of the month's chart, as the browser gets them."""
    spec = board._month._output.outputs[0]["data"][MIME]
    return list(spec["data"]["values"] if "values" in spec["data"] else next(iter(spec["datasets"].values())))


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


def test_the_charts_say_in_words_what_they_draw() -> None:
    rows = month(Scenario())
    figure = month_figure(rows)
    for row in rows:
        assert f"{row.name} {row.total:,.0f} dollars a month" in figure.alt
    assert "±25%" in tornado_figure(Scenario()).source


def test_the_address_sets_the_scenario_and_the_servers_own_parameters_do_not_matter(monkeypatch) -> None:
    monkeypatch.setenv("QUERY_STRING", "users=1234&token=abc&voila-template=lab&cached_share=0.5")
    assert settings_from_url() == Scenario(users=1234, cached_share=0.5)
    monkeypatch.delenv("QUERY_STRING")
    assert settings_from_url() == Scenario()


def test_a_misspelt_setting_in_the_address_is_reported_beside_the_defaults(monkeypatch) -> None:
    monkeypatch.setenv("QUERY_STRING", "userz=1234")
    with pytest.raises(InvalidRequest, match="userz"):
        settings_from_url()
    alert = dashboard().children[0].value
    assert "userz" in alert
    assert "role='alert'" in alert
