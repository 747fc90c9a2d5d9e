"""The rules file says what the burn rates say, and promtool agrees where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from decimal import Decimal

import pytest
import yaml

from labkit.alerts import SRE_RULES, alert_rules, alert_tests
from labkit.budgets import Daily, Monthly, SpendingLimit
from labkit.request import InvalidValue

D = Decimal
LIMITS = (
    SpendingLimit(D("720"), Monthly()),
    SpendingLimit(D("72"), Monthly(), tenant="*"),
    SpendingLimit(D("144"), Monthly(), tenant="acme & co."),
    SpendingLimit(D("36"), Monthly(), tenant="acme & co.", feature="chat"),
    SpendingLimit(D("9"), Monthly(), tenant="*", feature="*"),
    SpendingLimit(D("18"), Monthly(), tenant="*", feature="probe"),
    SpendingLimit(D("10"), Monthly(), tenant='{{ "a" }} \\n\n|', feature="*"),
)
HOURS = {"5m": 1 / 12, "30m": 0.5, "1h": 1, "2h": 2, "6h": 6, "1d": 24, "3d": 72}


def test_each_alert_compares_both_windows_with_its_share_of_the_month():
    (group,) = yaml.safe_load(alert_rules(LIMITS))["groups"]
    alerts = group["rules"]
    pairs = [(limit, rule) for limit in LIMITS for rule in SRE_RULES]
    assert len(alerts) == len(pairs) == len({alert["alert"] for alert in alerts})
    for alert, (limit, rule) in zip(alerts, pairs, strict=True):
        windows = re.findall(r"\[(\w+)\]\)\) > ([\d.e+-]+)", alert["expr"])
        assert [HOURS[window] * 3600 for window, _ in windows] == [rule.long_s, rule.short_s]
        for window, most in windows:
            assert float(most) == pytest.approx(rule.factor * float(limit.usd) / 720 * HOURS[window])
        assert alert["labels"]["severity"] == rule.severity
        assert str(limit) in alert["annotations"]["summary"].replace('{{"{{"}}', "{{")


def test_each_leaves_out_whom_another_limit_names():
    exprs = [alert["expr"] for alert in yaml.safe_load(alert_rules(LIMITS))["groups"][0]["rules"][:: len(SRE_RULES)]]
    hour = "labkit_cost_usd_total{%s}[1h]"
    assert exprs[0].startswith("sum (increase(labkit_cost_usd_total[1h])) > 14.4 and ")
    assert exprs[1].startswith("sum by (tenant) (increase(labkit_cost_usd_total[1h])) > 1.44 and ")
    assert exprs[1].endswith(' unless sum by (tenant) (increase(labkit_cost_usd_total{tenant="acme & co."}[1h]))')
    assert 'labkit_cost_usd_total{tenant="acme & co."}[5m]' in exprs[2]
    assert exprs[3].startswith("sum by (tenant, feature) (")
    odd = hour % r'tenant="{{ \"a\" }} \\n\n|"'
    assert [(expr.count(" unless "), odd in expr) for expr in exprs] == [
        (0, False), (1, False), (0, False), (0, False), (3, True), (1, True), (0, True),
    ]  # fmt: skip


def test_the_tests_have_each_alert_fire_above_its_rate_and_not_below():
    rules, tests = yaml.safe_load(alert_rules(LIMITS)), yaml.safe_load(alert_tests(LIMITS, "r.yml"))
    assert tests["rule_files"] == ["r.yml"]
    names = [alert["alert"] for alert in rules["groups"][0]["rules"]]
    asked = [(case["alertname"], len(case["exp_alerts"])) for test in tests["tests"] for case in test["alert_rule_test"]]
    assert asked == [(name, fires) for name in names for fires in (1, 0)]


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (SpendingLimit(D("1"), Daily()), "by the month"),
        (SpendingLimit(D("1"), Monthly(), user="bob"), "no label for users"),
        (SpendingLimit(D("0"), Monthly()), "leave it out"),
    ],
)
def test_limits_that_no_alert_can_be_for_are_refused(limit, told):
    with pytest.raises(InvalidValue, match=told):
        alert_rules([limit])
    with pytest.raises(InvalidValue, match="there are no limits"):
        alert_rules([])


def test_promtool_accepts_the_rules_and_runs_their_tests(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed: the alert rules were not run by Prometheus")

    def ran(command, limits, rules, tested=None):
        (tmp_path / "rules.yml").write_text(alert_rules(limits, rules), encoding="utf-8")
        (tmp_path / "tests.yml").write_text(alert_tests(tested or limits, "rules.yml", rules), encoding="utf-8")
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    checked = ran(["check", "rules", "rules.yml"], LIMITS, SRE_RULES)
    assert checked[0] == 0, checked
    test = ["test", "rules", "tests.yml"]
    for limits, rules in ((LIMITS[:2], SRE_RULES), (LIMITS, SRE_RULES[:1])):
        passed = ran(test, limits, rules)
        assert passed[0] == 0, passed
    assert ran(test, LIMITS[:2], SRE_RULES[:1], LIMITS[1::-1])[0] != 0, "tests of other rules must fail"
