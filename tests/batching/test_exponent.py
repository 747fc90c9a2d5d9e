from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from labkit.batching import fit_exponent
from labkit.request import InvalidValue

SIZES = (1, 2, 4, 8, 16, 32)


def noisy(alpha, c, sigma, repeats, seed):
    rng = np.random.default_rng(seed)
    return {b: list(c * b**alpha * np.exp(rng.normal(0, sigma, repeats))) for b in SIZES}


@given(st.floats(-0.5, 1.5), st.floats(0.1, 1e4))
def test_without_noise_the_exponent_is_exact_and_the_interval_a_point(alpha, c):
    found = fit_exponent(noisy(alpha, c, 0.0, 2, 0), resamples=20)
    assert found.alpha == pytest.approx(alpha, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((alpha, alpha), abs=1e-9)
    assert found.c == pytest.approx(c)
    assert found.misfit == pytest.approx(0, abs=1e-9)
    assert found.throughput(64) == pytest.approx(c * 64**alpha)


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(0.1, 100), min_size=2, max_size=5), min_size=2, max_size=6))
def test_the_line_is_that_of_scipys_regression_however_many_repeats_each_size_has(repeats):
    measured = dict(zip((1, 2, 4, 8, 16, 32), repeats, strict=False))
    x = np.concatenate([[np.log(b)] * len(values) for b, values in measured.items()])
    y = np.log(np.concatenate(list(measured.values())))
    line = stats.linregress(x, y)
    found = fit_exponent(measured, resamples=20)
    assert found.alpha == pytest.approx(line.slope, abs=1e-9)
    assert np.log(found.c) == pytest.approx(line.intercept, abs=1e-9)


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_the_interval_holds_the_truth_as_often_as_it_says(repeats):
    trials = 400
    held = 0
    for seed in range(trials):
        found = fit_exponent(noisy(0.8, 50, 0.1, repeats, seed), resamples=400, seed=seed)
        assert found.low < found.alpha < found.high
        held += found.low <= 0.8 <= found.high
    # 95 % asked; 400 trials tell it to ±2.2 % (two standard errors)
    assert 0.925 <= held / trials <= 0.975


def test_the_interval_is_as_wide_as_theory_says_for_many_repeats():
    sigma, repeats = 0.1, 50
    found = fit_exponent(noisy(0.8, 50, sigma, repeats, 1), resamples=4000)
    x = np.log(np.repeat(SIZES, repeats))
    half = 1.96 * sigma / np.sqrt(((x - x.mean()) ** 2).sum())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_saturation_shows_as_misfit_where_the_interval_stays_narrow():
    measured = {b: [min(b, 8) * 10.0 * wobble for wobble in (0.999, 1.001)] for b in SIZES}
    found = fit_exponent(measured)
    assert found.high - found.low < 0.01
    assert found.misfit > 0.2
    below = fit_exponent({b: measured[b] for b in (1, 2, 4, 8)})
    assert below.alpha == pytest.approx(1, abs=0.01)
    assert below.misfit < 0.01


def test_two_repeats_of_two_sizes_are_too_few_to_say_how_sure_one_is():
    found = fit_exponent({1: [10, 11], 2: [19, 20]})
    assert (found.low, found.high) == (-float("inf"), float("inf"))
    assert found.alpha == pytest.approx(0.9, abs=0.05)


def test_the_same_seed_gives_the_same_interval():
    measured = noisy(0.5, 1, 0.2, 3, 7)
    assert fit_exponent(measured) == fit_exponent(measured)
    assert fit_exponent(measured, seed=1) != fit_exponent(measured)
    narrow, wide = fit_exponent(measured, confidence=0.5), fit_exponent(measured, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("measured", "extra"),
    [
        ({1: [1, 2]}, {}),
        ({1: [1, 2], 2: [3]}, {}),
        ({0: [1, 2], 2: [3, 4]}, {}),
        ({1: [1, 0], 2: [3, 4]}, {}),
        ({1: [1, float("inf")], 2: [3, 4]}, {}),
        ({1: [1, 2], 2: [3, 4]}, {"confidence": 95}),
        ({1: [1, 2], 2: [3, 4]}, {"resamples": 0}),
    ],
)
def test_what_gives_no_slope_is_refused(measured, extra):
    with pytest.raises(InvalidValue):
        fit_exponent(measured, **extra)
