from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from labkit.request import InvalidValue
from labkit.routing.sequential import PairedTest, log_evidence


def pairs(runs, length, a, b, seed=0, both=0.0):
    """Counts of wins, ties and losses after every pair, one row a run; `both` is how far one hardness drives both arms."""
    rng = np.random.default_rng(seed)
    shared, own_a, own_b = (rng.random((runs, length)) for _ in range(3))
    together = rng.random((runs, length)) < both
    right_a, right_b = np.where(together, shared, own_a) < a, np.where(together, shared, own_b) < b
    wins, losses = right_b & ~right_a, right_a & ~right_b
    return [np.cumsum(x, axis=1) for x in (wins, wins == losses, losses)]


def test_the_stake_is_a_fair_game_under_the_hypothesis():
    # Exhaustive over all outcomes of five pairs: the expectation of the stake is 1 for each of these true differences.
    for win, loss in [(0.3, 0.3), (0.1, 0.4), (0.0, 0.2), (0.7, 0.1)]:
        chance = {1: win, -1: loss, 0: 1 - win - loss}
        expectation = sum(
            math.prod(chance[d] for d in ds) * math.exp(log_evidence(ds.count(1), ds.count(0), ds.count(-1), win - loss))
            for ds in itertools.product((1, 0, -1), repeat=5)
        )
        assert expectation == pytest.approx(1)


@pytest.mark.parametrize(("a", "b", "both"), [(0.5, 0.5, 0.0), (0.9, 0.9, 0.5), (0.8, 0.7, 0.0), (0.99, 0.99, 0.0)])
def test_looking_after_every_pair_is_wrong_no_more_often_than_alpha(a, b, both):
    runs, alpha = 1200, 0.05
    wins, ties, losses = pairs(runs, 1000, a, b, both=both)
    needed = math.log(2 / alpha)
    better = log_evidence(wins, ties, losses, b - a).max(axis=1) >= needed
    worse = log_evidence(losses, ties, wins, a - b).max(axis=1) >= needed
    wrong = (better | worse).mean()
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_a_z_test_that_is_looked_at_after_every_pair_is_wrong_far_more_often():
    wins, _, losses = pairs(2000, 1500, 0.5, 0.5)
    discordant = wins + losses
    z = np.abs(wins - losses) / np.sqrt(np.maximum(discordant, 1))  # McNemar's test
    peeking = (z[:, 30:] > norm.ppf(0.975)).any(axis=1).mean()
    assert peeking > 0.2
    assert (z[:, -1] > norm.ppf(0.975)).mean() < 0.07, "looked at once, it keeps its word"


def test_a_real_difference_is_found_and_sooner_when_it_is_larger():
    found = []
    for b in (0.75, 0.85):
        wins, ties, losses = pairs(300, 3000, 0.65, b, both=0.5)
        crossed = log_evidence(wins, ties, losses) >= math.log(2 / 0.05)
        assert crossed.any(axis=1).mean() > 0.95
        found.append(np.median(crossed.argmax(axis=1)))
    assert found[1] < found[0] / 2


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_what_the_stakes_do_not_reject(wins, ties, losses):
    test = PairedTest(0.05, 0.0, wins, ties, losses)
    low, high = test.interval
    grid = np.linspace(-1, 1, 101)
    kept = [
        d
        for d in grid
        if log_evidence(wins, ties, losses, d) < math.log(40) and log_evidence(losses, ties, wins, -d) < math.log(40)
    ]
    assert all(low - 1e-6 <= d <= high + 1e-6 for d in kept)
    assert all(d in kept for d in grid if low + 1e-6 < d < high - 1e-6)
    if test.difference is not None:
        assert low <= test.difference <= high
    swapped = PairedTest(0.05, 0.0, losses, ties, wins).interval
    assert swapped == pytest.approx((-high, -low))


def test_pair_by_pair_is_the_same_as_counts():
    test = PairedTest()
    assert (test.difference, test.interval, test.verdict) == (None, (-1, 1), "go on")
    for a, b in [(True, True), (False, True), (False, True), (True, False), (False, False)]:
        test = test.seen(a, b)
    assert (test.wins, test.ties, test.losses, test.difference) == (2, 2, 1, 0.2)


@pytest.mark.parametrize(
    ("counts", "margin", "verdict"),
    [
        ((200, 100, 50), 0.0, "B is better"),
        ((50, 100, 200), 0.0, "B is worse"),
        ((50, 100, 50), 0.0, "go on"),
        ((20, 3000, 20), 0.05, "B is not worse"),
        ((0, 900, 30), 0.1, "B is not worse"),
        ((50, 100, 200), 0.1, "B is worse"),
        ((5, 10, 5), 0.05, "go on"),
    ],
)
def test_verdicts(counts, margin, verdict):
    assert PairedTest(0.05, margin, *counts).verdict == verdict


@pytest.mark.parametrize(
    "make",
    [
        lambda: PairedTest(alpha=0),
        lambda: PairedTest(margin=-0.1),
        lambda: PairedTest(wins=-1),
        lambda: log_evidence(1, 1, 1, 2),
    ],
)
def test_tests_that_cannot_be_meant_are_refused(make):
    with pytest.raises(InvalidValue):
        make()
