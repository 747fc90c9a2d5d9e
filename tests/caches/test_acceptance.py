"""Thresholds and bounds against scipy's exact intervals, numerical integrals and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from labkit.caches.acceptance import (
    Curve,
    Observation,
    StaticThreshold,
    Verified,
    calibrated_threshold,
    fit_curve,
    lower_bound,
    upper_bound,
)
from labkit.caches.rehearsal import rehearse
from labkit.request import InvalidValue
from tests.caches.words import Words


def test_a_watched_bound_is_broken_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    for p in (0.01, 0.1):
        broken = 0
        for _ in range(300):
            wrong = np.cumsum(rng.random(600) < p)
            broken += any(upper_bound(int(wrong[n - 1]), n, 0.9) < p for n in range(5, 601, 5))
        assert broken / 300 <= 0.1


def test_a_watched_bound_is_wider_than_one_for_a_fixed_moment_and_not_by_much() -> None:
    for wrong, checked in ((0, 50), (0, 500), (3, 200), (40, 200)):
        exact = binomtest(wrong, checked, alternative="less").proportion_ci(0.95).high
        assert exact < upper_bound(wrong, checked) < 2.5 * exact
        exact_low = binomtest(wrong, checked, alternative="greater").proportion_ci(0.95).low
        assert lower_bound(wrong, checked) <= exact_low + 1e-9
    assert upper_bound(0, 0) == upper_bound(7, 7) == 1
    assert lower_bound(0, 0) == 0


def test_the_upper_bound_solves_its_own_equation() -> None:
    wrong, checked, confidence = 4, 120, 0.95
    p = upper_bound(wrong, checked, confidence)
    mixture, _ = quad(
        lambda q: (q / p) ** wrong * ((1 - q) / (1 - p)) ** (checked - wrong) / (math.pi * math.sqrt(q * (1 - q))), 0, 1
    )
    assert mixture == pytest.approx(1 / (1 - confidence), rel=1e-4)


def test_a_calibrated_threshold_keeps_its_bound_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    kept = given = 0
    for _ in range(200):
        scores = rng.random(1500)
        right = rng.random(1500) < 1 / (1 + np.exp(-14 * (scores - 0.45)))
        found = calibrated_threshold(scores, right, bound=0.05, confidence=0.9)
        if math.isinf(found.threshold):
            continue
        given += 1
        hits = np.linspace(found.threshold, 1, 20_001)
        kept += (1 - 1 / (1 + np.exp(-14 * (hits - 0.45)))).mean() <= 0.05
    assert given > 180
    assert kept / given >= 0.9


def test_a_threshold_says_what_it_was_proved_with() -> None:
    scores, right = np.linspace(0, 1, 1000), np.linspace(0, 1, 1000) > 0.5
    found = calibrated_threshold(scores, right, bound=0.02, confidence=0.95)
    above = scores >= found.threshold
    assert (found.hits, found.wrong) == (above.sum(), (above & ~right).sum())
    assert binomtest(found.wrong, found.hits, alternative="less").proportion_ci(0.95).high <= 0.02
    assert 0.45 < found.threshold < 0.52
    assert "at most 2.0% of hits are wrong with 95% confidence" in str(found)


def test_no_threshold_is_given_where_none_can_be_proved() -> None:
    scores = np.linspace(0.5, 1, 400)
    assert math.isinf(calibrated_threshold(scores, np.zeros(400, bool), bound=0.05).threshold)
    assert math.isinf(
        calibrated_threshold(scores[:20], np.ones(20, bool), bound=0.05).threshold
    )  # too few to prove anything
    assert "no threshold" in str(calibrated_threshold(scores[:20], np.ones(20, bool), bound=0.05))
    ties = calibrated_threshold(np.full(400, 0.9), np.r_[np.ones(399, bool), False], bound=0.05)
    assert (ties.threshold, ties.hits) in ((0.9, 400), (math.inf, 0))


def test_a_fitted_curve_finds_the_one_that_made_the_data() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.3, 1, (500, 8))
    offsets = rng.normal(0, 1.5, 500)
    right = rng.random(scores.shape) < 1 / (1 + np.exp(-(-6 + 10 * scores + offsets[:, None])))
    found = fit_curve(scores.ravel(), right.ravel(), np.repeat(np.arange(500), 8).tolist())
    assert found.slope == pytest.approx(10, rel=0.15)
    assert found.intercept == pytest.approx(-6, rel=0.15)
    assert found.spread == pytest.approx(1.5, rel=0.2)
    assert fit_curve(scores.ravel(), right.ravel()).spread == 0


@pytest.mark.parametrize("seen", [(), (Observation(0.9, True),) * 4, (Observation(0.95, False), Observation(0.97, True))])
def test_an_entrys_credible_bound_is_the_integral_of_its_posterior(seen: tuple[Observation, ...]) -> None:
    curve = Curve(-8, 12, 1.3)

    def density(z: float) -> float:
        chance = norm.pdf(z)
        for o in seen:
            p = curve.probability(o.score, 1.3 * z)
            chance *= p if o.right else 1 - p
        return chance

    total, _ = quad(density, -4, 4)
    z = brentq(lambda edge: quad(density, -4, edge)[0] / total - 0.1, -4, 4)
    expected = curve.probability(0.93, 1.3 * z)
    assert Verified(curve, 0.05, 0.9).probability(0.93, seen) == pytest.approx(expected, abs=0.02)


def test_what_was_wrong_lowers_trust_and_what_was_right_raises_it() -> None:
    verified = Verified(Curve(-8, 12, 1.5), bound=0.05)
    start = verified.probability(0.9)
    assert verified.probability(0.9, [Observation(0.9, False)]) < start < verified.probability(0.9, [Observation(0.9, True)])
    assert verified.probability(0.8) < start < verified.probability(0.95)
    assert "1 of 1 earlier checks right" in verified.decide(0.9, [Observation(0.9, True)]).why


def test_a_rehearsal_counts_what_a_cache_that_kept_everything_would_have_found() -> None:
    questions = [
        ("a", "may I return boots", "yes"), ("a", "boots may I return", "yes"), ("b", "may I return boots", "no"),
        ("a", "may I return boots not", "no"), ("a", "boots return I may", "other"),
    ]  # fmt: skip
    found = rehearse(questions, Words())
    assert found.entries[0] == 0
    assert found.entries[1] in (0, 1)  # both are the same bag of words; the negated one was set apart
    assert found.right.tolist() == [True, False]
    assert (found.questions, found.apart) == (5, 1)
    assert found.at(0.99) == (2 / 5, 1 / 2)
    assert found.at(1.01) == (0, 0)
    assert found.learned(StaticThreshold(0.99)) == found.at(0.99)
    assert len(rehearse(questions, Words(), contrast=None).scores) == 3


def test_bad_arguments_are_named() -> None:
    for bad in (
        lambda: StaticThreshold(1.2),
        lambda: Verified(Curve(0, 1, 1), bound=0),
        lambda: Verified(Curve(0, 1, 1), confidence=1),
        lambda: upper_bound(3, 2),
        lambda: upper_bound(0, 2, 1.0),
        lambda: fit_curve([0.5] * 5, [True] * 5),
        lambda: fit_curve([0.5] * 30, [True] * 30),
        lambda: fit_curve([math.nan] * 30, [True, False] * 15),
        lambda: fit_curve([0.5] * 30, [True, False] * 15, [1]),
        lambda: calibrated_threshold([0.5], [True, False], bound=0.1),
        lambda: calibrated_threshold([0.5], [True], bound=1.0),
        lambda: rehearse([], Words()),
    ):
        with pytest.raises(InvalidValue):
            bad()


def test_a_later_beginning_does_not_end_at_one_wrong_hit_among_the_best_and_keeps_its_promise():
    rng = np.random.default_rng(5)
    scores, exceeded, found_early, found_late = np.linspace(1, 0, 2000), 0, 0, 0
    wrong_share = np.where(scores > 0.5, 0.01, 0.5)
    for _ in range(200):
        right = rng.random(2000) >= wrong_share
        late = calibrated_threshold(scores, right, bound=0.05, first=200)
        found_early += np.isfinite(calibrated_threshold(scores, right, bound=0.05).threshold)
        found_late += np.isfinite(late.threshold)
        exceeded += np.isfinite(late.threshold) and wrong_share[scores >= late.threshold].mean() > 0.05
    assert found_late > 180 > found_early
    assert exceeded <= 18  # 5 % of 200, and three standard errors
