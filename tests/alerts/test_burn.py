"""Burn rates against the workbook's table and against sums by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.alerts import MONTH_S, SRE_RULES, BurnRule, Spending, burn_rate, burning, first_burning
from labkit.request import InvalidValue

HOUR = 3600.0


def steady(rate, hours, budget=720.0, every=60.0, start=0.0):
    """Spending at `rate` times what a budget of 720 a month allows, which is a dollar an hour: (times, dollars)."""
    times = [start + i * every for i in range(1, int(hours * HOUR / every) + 1)]
    return times, [rate * budget / MONTH_S * every] * len(times)


def test_the_shares_of_the_budget_are_the_workbooks():
    """Table 5-8: 2 % in an hour, 5 % in six hours, 10 % in three days; and 10 % in a day."""
    assert [round(rule.share(), 6) for rule in SRE_RULES] == [0.02, 0.05, 0.1, 0.1]
    assert [rule.long_s / rule.short_s for rule in SRE_RULES] == [12] * 4


def test_a_rate_of_1_spends_the_budget_by_the_periods_end():
    assert burn_rate(720, MONTH_S, 720) == 1
    assert burn_rate(14.4, HOUR, 720) == pytest.approx(14.4)
    assert (burn_rate(0, HOUR, 0), burn_rate(1, HOUR, 0)) == (0, math.inf)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 50)), max_size=30), st.integers(0, 1000), st.integers(1, 500))
def test_a_window_holds_what_a_sum_by_hand_finds(rows, at, window):
    spending = Spending([t for t, _ in rows], [usd for _, usd in rows])
    assert spending.within(at, window) == sum(usd for t, usd in rows if at - window < t <= at)


@pytest.mark.parametrize(
    ("rate", "factors"), [(0.9, []), (1.1, [1]), (3.1, [3, 1]), (6.1, [6, 3, 1]), (15, [14.4, 6, 3, 1])]
)
def test_a_steady_burn_fires_the_rules_below_it(rate, factors):
    spending = Spending(*steady(rate, 80))
    assert [rule.factor for rule in burning(spending, 80 * HOUR, 720)] == factors


def test_an_alert_ends_soon_after_its_cause():
    times, usd = steady(20, 1)
    spending = Spending(times, usd)
    at_end = [rule.factor for rule in burning(spending, HOUR, 720)]
    assert at_end[0] == 14.4
    assert burning(spending, HOUR + 400, 720, rules=SRE_RULES[:1]) == (), "the short window of 300 s is empty"


def test_the_first_to_fire_is_found_when_its_long_window_has_filled_enough():
    """At 28.8 the hour's 14.4 dollars are spent in half an hour."""
    at, rule = first_burning(Spending(*steady(28.8, 2)), 720)
    assert rule.factor == 14.4
    assert at == pytest.approx(HOUR / 2, abs=120)
    assert first_burning(Spending(*steady(0.5, 100)), 720) is None
    assert first_burning(Spending([], []), 720) is None


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: BurnRule(0, 60, 5), "factor is 0"),
        (lambda: BurnRule(2, 60, 60), "make it shorter"),
        (lambda: Spending([1.0], [1.0, 2.0]), "one amount for each"),
        (lambda: Spending([1.0], [math.nan]), "not a finite"),
        (lambda: burn_rate(1, 0, 5), "window_s"),
    ],
)
def test_what_cannot_work_is_refused(bad, told):
    with pytest.raises(InvalidValue, match=told):
        bad()
