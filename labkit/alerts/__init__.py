"""Alerts on spending: soon enough to save money, and seldom enough to be believed.

- Burn rates on a budget: `burn_rate`, `BurnRule`, `SRE_RULES`, and on a series of spending (`Spending`) `burning` and
  `first_burning`.
- Changes in the cost of a request: `Cusum`, with a stated false-alarm rate, beside the `PlainThreshold` of the same rate.
- Days to try an alert on: `spending_days` draws null days and days with a planted regression, `score_alert` says what an
  alert caught, how late in dollars, and how often it fired for nothing.
- As files: `alert_rules` writes limits as alerts for Prometheus, `alert_tests` the tests of these for `promtool`.
"""

from labkit.alerts.burn import MONTH_S, SRE_RULES, BurnRule, Spending, burn_rate, burning, first_burning
from labkit.alerts.change import Alarm, Cusum, PlainThreshold
from labkit.alerts.days import AlertScore, Regression, SpendingDay, score_alert, spending_days
from labkit.alerts.rules import alert_rules, alert_tests

__all__ = [
    "MONTH_S",
    "SRE_RULES",
    "Alarm",
    "AlertScore",
    "BurnRule",
    "Cusum",
    "PlainThreshold",
    "Regression",
    "Spending",
    "SpendingDay",
    "alert_rules",
    "alert_tests",
    "burn_rate",
    "burning",
    "first_burning",
    "score_alert",
    "spending_days",
]
