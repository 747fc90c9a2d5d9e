"""Burn rates: how fast a budget is being spent, and when that is worth waking somebody.

A burn rate of 1 spends exactly the budget by the end of its period; at 14.4, a month's budget is gone in 50 hours. A rule
looks at two windows. The long one says that enough is gone to matter, the short one that it is still going on, so that the
alert ends soon after the cause does. Source: Google, "The Site Reliability Workbook" (2018), chapter 5, "Multiwindow,
Multi-Burn-Rate Alerts". The chapter's budgets are of errors; here they are of dollars, which are meant to be spent: a burn
rate of 1 over three days says that the month will end at its limit, and the daily peak alone should not reach the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from labkit.request import InvalidValue

HOUR_S = 3600.0
MONTH_S = 30 * 24 * HOUR_S
"""The month of the workbook's factors: 30 days."""


def above_0(name: str, value: Any) -> None:
    """Raise `InvalidValue` unless `value` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise InvalidValue(f"{name} is {value!r:.60}; use a finite number above 0")


@dataclass(frozen=True, slots=True)
class BurnRule:
    """Fires while the burn rate is above `factor` over the last `long_s` seconds and over the last `short_s` seconds.

    Raises `InvalidValue` for numbers that are not above 0, and for a short window that is not shorter.
    """

    factor: float
    long_s: float
    short_s: float
    severity: Literal["page", "ticket"] = "page"

    def __post_init__(self) -> None:
        for name in ("factor", "long_s", "short_s"):
            above_0(name, getattr(self, name))
        if self.short_s >= self.long_s:
            raise InvalidValue(f"the short window is {self.short_s} s and the long one {self.long_s} s; make it shorter")

    def share(self, period_s: float = MONTH_S) -> float:
        """The share of the period's budget that is gone when a steady burn at `factor` has filled the long window."""
        return self.factor * self.long_s / period_s


SRE_RULES = (
    BurnRule(14.4, HOUR_S, HOUR_S / 12, "page"),
    BurnRule(6, 6 * HOUR_S, HOUR_S / 2, "page"),
    BurnRule(3, 24 * HOUR_S, 2 * HOUR_S, "ticket"),
    BurnRule(1, 72 * HOUR_S, 6 * HOUR_S, "ticket"),
)
"""The workbook's windows: 2 % of a month's budget in an hour, 5 % in six, 10 % in a day and in three."""


def burn_rate(spent: float, window_s: float, budget: float, period_s: float = MONTH_S) -> float:
    """How many times as fast as the `budget` of `period_s` seconds allows `spent` was spent in `window_s` seconds.

    Infinite where the budget is 0 and anything is spent. Raises `InvalidValue` for times that are not above 0.
    """
    above_0("window_s", window_s)
    above_0("period_s", period_s)
    if budget == 0:
        return math.inf if spent > 0 else 0.0
    return (spent / window_s) / (budget / period_s)


class Spending:
    """What was spent when: dollars at times in seconds, in any order. Raises `InvalidValue` for what is not finite."""

    def __init__(self, times: Sequence[float] | NDArray[Any], usd: Sequence[float] | NDArray[Any]) -> None:
        at, amounts = np.asarray(times, dtype=float), np.asarray(usd, dtype=float)
        if at.shape != amounts.shape or at.ndim != 1:
            raise InvalidValue(f"{at.shape} times and {amounts.shape} amounts; give one amount for each time")
        if not (np.isfinite(at).all() and np.isfinite(amounts).all()):
            raise InvalidValue("a time or an amount is not a finite number; leave such rows out, and count them")
        order = np.argsort(at, kind="stable")
        self.times = at[order]
        self._until = np.concatenate(([0.0], np.cumsum(amounts[order])))

    def within(self, at: float, window_s: float) -> float:
        """The dollars spent after `at` - `window_s` and until `at`."""
        first, last = np.searchsorted(self.times, (at - window_s, at), side="right")
        return float(self._until[last] - self._until[first])


def burning(
    spending: Spending, at: float, budget: float, period_s: float = MONTH_S, rules: Iterable[BurnRule] = SRE_RULES
) -> tuple[BurnRule, ...]:
    """Those of `rules` that fire at `at`."""

    def rate(window_s: float) -> float:
        return burn_rate(spending.within(at, window_s), window_s, budget, period_s)

    return tuple(rule for rule in rules if rate(rule.long_s) > rule.factor and rate(rule.short_s) > rule.factor)


def first_burning(
    spending: Spending,
    budget: float,
    period_s: float = MONTH_S,
    rules: Sequence[BurnRule] = SRE_RULES,
    every_s: float = 60.0,
) -> tuple[float, BurnRule] | None:
    """When the first of `rules` fires, and which; None if none does. They are looked at every `every_s` seconds."""
    above_0("every_s", every_s)
    if not len(spending.times):
        return None
    start, end = float(spending.times[0]), float(spending.times[-1])
    for step in range(int((end - start) // every_s) + 2):
        at = start + step * every_s
        fires = burning(spending, at, budget, period_s, rules)
        if fires:
            return at, fires[0]
    return None
