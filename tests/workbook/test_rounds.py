import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from labkit.workbook import ExerciseError, below, spread

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


@given(NUMBERS)
def test_the_interval_holds_the_median_and_is_made_of_rounds(rounds):
    found = spread(rounds)
    assert found.low <= found.median <= found.high
    assert found.median == median(rounds)
    assert {found.low, found.high} <= set(map(float, rounds))


@given(st.integers(2, 200))
def test_the_coverage_is_the_binomials_and_the_interval_the_narrowest_that_covers_enough(n):
    found = spread(range(n))
    k = int(found.low) + 1
    assert found.high == n - k
    assert found.coverage == pytest.approx(1 - 2 * binom.cdf(k - 1, n, 0.5))
    narrower = 1 - 2 * binom.cdf(k, n, 0.5)
    assert narrower < 0.95 or 2 * (k + 1) > n


@pytest.mark.parametrize("n", [5, 9, 15])
def test_the_interval_covers_the_true_median_as_often_as_it_says(n):
    dice = random.Random(n)
    draws = [spread([dice.lognormvariate(0, 1) for _ in range(n)]) for _ in range(4000)]  # its median is 1
    covered = sum(one.low <= 1 <= one.high for one in draws) / len(draws)
    assert covered == pytest.approx(draws[0].coverage, abs=0.02)


@pytest.mark.parametrize("rounds", [[], [1.0, float("nan")], [float("inf")]])
def test_rounds_that_were_not_measured_are_refused(rounds):
    with pytest.raises(ExerciseError, match="rounds"):
        spread(rounds)


@given(NUMBERS, NUMBERS)
def test_below_says_the_opposite_the_other_way_round(one, other):
    opposite = {True: False, False: True, None: None}
    assert below(other, one) == opposite[below(one, other)]


def test_pairs_tell_what_two_wide_intervals_cannot():
    """A busy moment slows both of a pair, so the pair's ratio is steadier than either."""
    slow, fast = [10.0, 30.0, 12.0, 50.0, 11.0], [9.0, 27.0, 11.0, 44.0, 10.0]
    assert below(fast, slow) is True
    assert below(fast[:4], slow) is None


def test_what_overlaps_cannot_be_told_apart():
    assert below([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 6.0]) is None
    assert below([1.0, 1.1], [2.0, 2.1, 2.2]) is True
    assert below([-3.0, -2.0], [-1.0, -1.5]) is True
