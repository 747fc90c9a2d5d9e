"""The figures of the model card, against peers and worked cases."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from labkit.lab import Example
from labkit.lab.evaluate import Answered, calibration_error, wilson, write_card
from labkit.request import InvalidRequest, Message


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
    with pytest.raises(InvalidRequest, match=str(n)):
        wilson(right, n)


def test_calibration_error_of_a_case_worked_by_hand() -> None:
    # Bin 0.9…1.0: confidence 0.95, 1 of 2 right: gap 0.45. Bin 0.5…0.6: confidence 0.55, 2 of 2 right: gap 0.45.
    answered = [_answered(0.95, True), _answered(0.95, False), _answered(0.55, True), _answered(0.55, True)]
    error, bins = calibration_error(answered)
    assert error == pytest.approx(0.45)
    assert [b["n"] for b in bins] == [2, 2]


def test_a_perfectly_calibrated_model_has_no_error() -> None:
    error, _ = calibration_error([_answered(0.75, i < 3) for i in range(4)])
    assert error == pytest.approx(0)


def test_a_card_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no marks here")
    with pytest.raises(InvalidRequest, match="eval: begin"):
        write_card({"models": {}}, tmp_path)
    assert (tmp_path / "README.md").read_text() == "no marks here"
    assert json.loads((tmp_path / "eval.json").read_text()) == {"models": {}}
