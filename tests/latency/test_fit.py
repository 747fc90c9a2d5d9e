"""The fit finds the constants that made the data, and says when data cannot tell them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from labkit.latency import LatencyModel, StepWork
from labkit.latency.fitting import CalibrationError, FirstTokenPoint, LatencyCalibration, StepPoint, fit, ttft_seconds

# A CPU-like engine, where overheads and arithmetic count, and a GPU-like one, where reading does.
CPU = LatencyModel(4e-3, 2e-4, 1.5e-5, 3e-4, 2e-9, 4e-8, 3e-3, 2e-6)
GPU = LatencyModel(1e-3, 5e-6, 2e-5, 5e-3, 3e-10, 4e-8, 8e-3, 1e-6)


def works() -> list[StepWork]:
    decode = [StepWork.of([(1, context)] * n) for n in (1, 2, 4, 8, 16, 32, 64) for context in (50, 500, 1500)]
    prefill = [StepWork.of([(n, 0), (1, 100)]) for n in (32, 100, 300, 700, 1000, 1500, 2000)]
    return decode + prefill


def measured(truth: LatencyModel, noise: float = 0.0, seed: int = 0) -> tuple[list[StepPoint], list[FirstTokenPoint]]:
    rng = random.Random(seed)
    steps = [StepPoint(w, truth.step_seconds(w) * rng.lognormvariate(0, noise)) for w in works()]
    firsts = [
        FirstTokenPoint(
            n, (StepWork.of([(n, 0)]),), ttft_seconds(truth, n, [StepWork.of([(n, 0)])]) * rng.lognormvariate(0, noise)
        )
        for n in (16, 64, 200, 500, 1000, 1500)
    ]
    return steps, firsts


HELD_OUT = [
    StepWork.of([(1, 300)] * 24),
    StepWork.of([(512, 0), *[(1, 200)] * 7]),
    StepWork.of([(256, 1024), *[(1, 800)] * 3]),
    StepWork.of([(1, 1000)]),
]


@pytest.mark.parametrize("truth", [CPU, GPU])
def test_what_made_the_data_is_found_again(truth: LatencyModel) -> None:
    found = fit(*measured(truth)).model
    for work in HELD_OUT:
        assert found.step_seconds(work) == pytest.approx(truth.step_seconds(work), rel=0.01)
    assert ttft_seconds(found, 800, [StepWork.of([(800, 0)])]) == pytest.approx(
        ttft_seconds(truth, 800, [StepWork.of([(800, 0)])]), rel=0.01
    )


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_two_disturbed_steps_move_it_little(seed: int) -> None:
    steps, firsts = measured(CPU, noise=0.03, seed=seed)
    steps[2], steps[20] = replace(steps[2], seconds=4 * steps[2].seconds), replace(steps[20], seconds=3 * steps[20].seconds)
    found = fit(steps, firsts).model
    for work in HELD_OUT:
        assert found.step_seconds(work) == pytest.approx(CPU.step_seconds(work), rel=0.1)


def test_errors_are_predicted_over_measured() -> None:
    steps, firsts = measured(CPU)
    slow = tuple(replace(p, seconds=2 * p.seconds) for p in steps)
    calibration = LatencyCalibration(CPU, slow, tuple(firsts))
    assert calibration.errors[: len(steps)] == pytest.approx([-0.5] * len(steps))
    assert calibration.median_error == pytest.approx(0.5)


def test_points_that_cannot_tell_are_refused() -> None:
    steps, firsts = measured(CPU)
    with pytest.raises(CalibrationError, match=r"0 steps and 6 first tokens do not determine 8 constants"):
        fit([], firsts)
    with pytest.raises(CalibrationError, match="same number of sequences"):
        fit([StepPoint(StepWork.of([(n, 0)]), 0.01) for n in range(1, 10)], firsts)
    with pytest.raises(CalibrationError, match="same number of new tokens"):
        fit([steps[0]] * 10, firsts)
    with pytest.raises(CalibrationError, match="one length"):
        fit(steps, [firsts[0]] * 4)
    with pytest.raises(CalibrationError, match=r"-1 s is not a duration"):
        fit([replace(steps[0], seconds=-1), *steps], firsts)
