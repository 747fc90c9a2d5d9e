"""The waits, beside tenacity's for the same dice."""

from __future__ import annotations

import random

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import InvalidValue
from labkit.resilience import Backoff


def tenacitys(wait, failed):
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failed
    return wait(state)


@given(st.floats(0.01, 10), st.floats(1, 50), st.integers(1, 60), st.integers(0, 999))
def test_full_jitter_and_none_are_tenacitys(first, times, failed, seed):
    most = first * times
    random.seed(seed)
    theirs = tenacitys(tenacity.wait_random_exponential(multiplier=first, max=most), failed)
    assert Backoff(first, most).wait_s(failed, random.Random(seed)) == pytest.approx(theirs)
    theirs = tenacitys(tenacity.wait_exponential(multiplier=first, max=most), failed)
    assert Backoff(first, most, "none").wait_s(failed, random.Random(seed)) == pytest.approx(theirs)


@given(st.integers(1, 5000), st.integers(0, 999))
def test_equal_jitter_keeps_half_of_the_limit(failed, seed):
    backoff, dice = Backoff(0.5, 8.0, "equal"), random.Random(seed)
    half = backoff.limit_s(failed) / 2
    assert backoff.wait_s(failed, dice) == half + half * random.Random(seed).random()


def test_the_limits_double_up_to_the_longest():
    assert [Backoff().limit_s(n) for n in (1, 2, 3, 4, 5, 6, 9999)] == [0.5, 1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ((-1, 8), "first wait from 0 s"),
        ((9, 8), "no shorter"),
        ((1, float("inf")), "finite"),
        ((float("nan"), 8), "finite"),
        ((1, 8, "half"), "use one of full, equal, none"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, told):
    with pytest.raises(InvalidValue, match=told):
        Backoff(*settings)
    with pytest.raises(InvalidValue, match="at least one"):
        Backoff().limit_s(0)
