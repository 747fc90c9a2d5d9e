"""Limits as alerts for Prometheus: a file of rules, and the tests of it that `promtool test rules` runs.

A limit becomes one alert for each burn rule. `increase` sees a counter that starts anew and adds what came before, so an
exporter that was restarted inside a window does not make the spending less. A month has 30 days here, as in the burn rates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from labkit.alerts.burn import HOUR_S, MONTH_S, SRE_RULES, BurnRule
from labkit.alerts.names import COST_METRIC, LIMIT_LABELS
from labkit.budgets import EVERY, Monthly, SpendingLimit, in_force
from labkit.request import InvalidValue


def alert_rules(limits: Sequence[SpendingLimit], rules: Sequence[BurnRule] = SRE_RULES) -> str:
    """The text of a Prometheus rules file (YAML): an alert for each of the monthly `limits` and each of `rules`.

    A limit for "*" leaves out those for whom another limit holds in its place. Raises `InvalidValue` for limits that
    are not by the month or are by user (the metrics have no such label), for a limit of 0, and for no limits.
    """
    alerts = [
        {
            "alert": _name(number, rule),
            "expr": _expression(limit, limits, rule),
            "labels": {"severity": rule.severity},
            "annotations": {"summary": _summary(limit, rule).replace("{{", '{{"{{"}}')},  # it is a template
        }
        for number, limit, rule in _pairs(limits, rules)
    ]
    return _text({"groups": [{"name": "labkit-budgets", "rules": alerts}]})


def alert_tests(
    limits: Sequence[SpendingLimit], rules_file: str = "labkit-rules.yml", rules: Sequence[BurnRule] = SRE_RULES
) -> str:
    """The text of a file for `promtool test rules`: each alert fires a tenth above its rate, and not a tenth below.

    `rules_file` is the path of what `alert_rules` gave for the same limits, from the folder of the test file.
    """
    tests, probe = [], _nobody(limits)
    for number, limit, rule in _pairs(limits, rules):
        labels = {name: probe if value == EVERY else value for name, value in limit.named()}
        hours, step_s = math.ceil(rule.long_s / HOUR_S) + 1, rule.short_s / 5
        for times in (1.1, 0.9):
            a_step = times * rule.factor * float(limit.usd) / MONTH_S * step_s
            fires: list[dict[str, Any]] = [
                {
                    "exp_labels": {"severity": rule.severity, **labels},
                    "exp_annotations": {"summary": _summary(limit, rule)},
                }
            ]
            tests.append(
                {
                    "interval": _window(step_s),
                    "input_series": [
                        {"series": _series(labels), "values": f"0+{a_step:.12f}x{hours * HOUR_S // step_s:.0f}"}
                    ],
                    "alert_rule_test": [
                        {
                            "eval_time": f"{hours}h",
                            "alertname": _name(number, rule),
                            "exp_alerts": fires if times > 1 else [],
                        }
                    ],
                }
            )
    # By the hour, and with five samples in a short window: promtool takes minutes for three days by the minute.
    return _text({"rule_files": [rules_file], "evaluation_interval": "1h", "tests": tests})


def _pairs(limits: Sequence[SpendingLimit], rules: Sequence[BurnRule]) -> Iterator[tuple[int, SpendingLimit, BurnRule]]:
    if not limits:
        raise InvalidValue("there are no limits; give the monthly SpendingLimits that should raise alerts")
    for limit in limits:
        if not isinstance(limit.span, Monthly):
            raise InvalidValue(f"{limit}: the windows of burn rates are made for a month; give a limit by the month")
        if limit.user is not None:
            raise InvalidValue(f"{limit}: the metrics have no label for users; give a limit by {' or '.join(LIMIT_LABELS)}")
        if not limit.usd:
            raise InvalidValue(f"{limit}: of nothing, no rate can be spent; the budget itself refuses, so leave it out")
    for number, limit in enumerate(limits, 1):
        for rule in rules:
            yield number, limit, rule


def _name(number: int, rule: BurnRule) -> str:
    return f"LabkitBudget{number}Burn{rule.factor:g}In{_window(rule.long_s)}".replace(".", "_")


def _expression(limit: SpendingLimit, limits: Sequence[SpendingLimit], rule: BurnRule) -> str:
    by = f" by ({', '.join(name for name, _ in limit.named())})" if limit.named() else ""

    def spent(of: SpendingLimit, window_s: float) -> str:
        named = {name: value for name, value in of.named() if value != EVERY}
        return f"sum{by} (increase({_series(named)}[{_window(window_s)}]))"

    fires = [
        f"{spent(limit, window_s)} > {rule.factor * float(limit.usd) * window_s / MONTH_S:.12g}"
        for window_s in (rule.long_s, rule.short_s)
    ]
    return " unless ".join([" and ".join(fires), *(spent(other, rule.long_s) for other in _instead(limit, limits))])


def _instead(limit: SpendingLimit, limits: Sequence[SpendingLimit]) -> list[SpendingLimit]:
    """The limits that hold in the place of `limit` for some of those whom it covers, as the purses choose."""
    fields = dict(limit.named())

    def meets(other: SpendingLimit) -> bool:
        theirs = dict(other.named())
        return theirs.keys() == fields.keys() and all(
            EVERY in (value, theirs[name]) or value == theirs[name] for name, value in fields.items()
        )

    return [other for other in limits if meets(other) and in_force([limit, other]) == [other] != [limit]]


def _summary(limit: SpendingLimit, rule: BurnRule) -> str:
    return f"{rule.factor:g} times as fast as {limit} allows, over {_window(rule.long_s)}"


def _nobody(limits: Sequence[SpendingLimit]) -> str:
    """A name that none of the limits has."""
    names, free = {value for limit in limits for _, value in limit.named()}, "probe"
    while free in names:
        free += "-"
    return free


def _series(labels: dict[str, str]) -> str:
    inside = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    return f"{COST_METRIC}{{{inside}}}" if labels else COST_METRIC


def _window(seconds: float) -> str:
    """Seconds in Prometheus's notation: "3d", "6h", "30m", "90s"."""
    for unit, size in (("d", 24 * HOUR_S), ("h", HOUR_S), ("m", 60.0)):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _text(document: dict[str, Any]) -> str:
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))
