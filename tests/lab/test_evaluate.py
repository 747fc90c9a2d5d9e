"""The figures of the model card, against peers and worked cases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from labkit.lab import Example, families
from labkit.lab.evaluate import Answered, calibration_error, card_tables, wilson, write_card
from labkit.request import InvalidValue, Message


def _answered(confidence: float, right: bool) -> Answered:
    example = Example("x", "intent", "easy", (Message("user", "x"),), "x")
    return Answered(example, "x", right, 1, 1, 0, math.log(confidence))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_the_one_that_scipy_computes(case: tuple[int, int]) -> None:
    right, n = case
    peer = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((peer.low, peer.high), abs=1e-9)


@pytest.mark.parametrize(("right", "n"), [(1, 0), (3, 2), (-1, 5)])
def test_an_impossible_proportion_is_refused(right: int, n: int) -> None:
    with pytest.raises(InvalidValue, match=str(n)):
        wilson(right, n)


def test_calibration_error_of_a_case_worked_by_hand() -> None:
    # 0.9…1.0: confidence 0.95, 1 of 2 right, gap 0.45. 0.5…0.6: confidence 0.52, 3 of 3, gap 0.48. (2·0.45 + 3·0.48) / 5.
    answered = [_answered(0.95, True), _answered(0.95, False), *(_answered(c, True) for c in (0.51, 0.52, 0.53))]
    error, bins = calibration_error(answered)
    assert error == pytest.approx(0.468)
    assert bins == [{"confidence": 0.52, "accuracy": 1, "n": 3}, {"confidence": 0.95, "accuracy": 0.5, "n": 2}]


def test_certainty_belongs_to_the_last_bin() -> None:
    error, bins = calibration_error([_answered(1.0, False)])
    assert error == pytest.approx(1)
    assert bins == [{"confidence": 1, "accuracy": 0, "n": 1}]


def test_a_perfectly_calibrated_model_has_no_error() -> None:
    error, _ = calibration_error([_answered(0.75, i < 3) for i in range(4)])
    assert error == pytest.approx(0)


def test_a_card_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no marks here")
    with pytest.raises(InvalidValue, match="eval: begin"):
        write_card({"models": {}}, tmp_path)
    assert (tmp_path / "README.md").read_text() == "no marks here"
    assert json.loads((tmp_path / "eval.json").read_text()) == {"models": {}}


def _report(right: int) -> dict[str, Any]:
    cell = {
        "n": 8,
        "accuracy": right / 8,
        "low": 0.125,
        "high": 0.875,
        "mean_output_tokens": 3.5,
        "mean_reasoning_tokens": 1.5,
    }
    model = {
        "families": dict.fromkeys(families(), cell),
        "difficulty": {"easy": cell, "hard": cell},
        "prompt_tokens": {"≤ 256": cell},
        "calibration": {"ece": 0.0625, "bins": []},
    }
    head = {"made": "2026-01-02", "machine": "abacus", "torch": "2.0", "split": "test", "seed": 3, "n_per_family": 8}
    return {**head, "models": {"small": model, "large": model}}


def test_the_tables_show_each_figure_with_its_interval() -> None:
    lines = card_tables(_report(4)).splitlines()
    for row in (*families(), "easy", "hard", "≤ 256"):
        assert f"| {row} | 50.0 % (12.5–87.5) | 50.0 % (12.5–87.5) |" in lines
    assert f"| {families()[0]} | 3.5 (1.5) | 3.5 (1.5) |" in lines
    assert "8 examples a family, seed 3" in lines[0]
    assert "Calibration of `large`: expected calibration error 6.2 %." in lines


def test_writing_the_card_again_replaces_the_tables_and_nothing_else(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("before\n<!-- eval: begin -->\nstale\n<!-- eval: end -->\nafter\n")
    for right in (2, 6):
        write_card(_report(right), tmp_path)
    tables = card_tables(_report(6))
    assert card.read_text() == f"before\n<!-- eval: begin -->\n{tables}\n<!-- eval: end -->\nafter\n"
    assert json.loads((tmp_path / "eval.json").read_text()) == _report(6)
