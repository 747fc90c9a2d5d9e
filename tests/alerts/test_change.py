"""The change detector keeps its stated false-alarm rate, finds what was planted, and beats a plain threshold in dollars."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from labkit.alerts import Cusum, PlainThreshold, score_alert, spending_days
from labkit.request import InvalidValue

AT_MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@cache
def null():
    return spending_days(28, 1, planted=0)


@cache
def cusum():
    return Cusum.fitted(null(), false_alarms=0.05)


def test_the_statistic_is_pages_recursion():
    """Against S_n = max over k of the sum from k to n, its closed form."""
    day = spending_days(1, 5, planted=1)[0]
    detector = replace(cusum(), threshold=np.inf)
    assert detector.fires(day) is None
    logs = np.log(day.cost_per_request())
    z = np.clip((logs - detector.usual) / detector.spread, -4, 4) - detector.reference
    sums = np.concatenate(([0.0], np.cumsum(z)))
    closed = sums[1:] - np.minimum.accumulate(sums)[:-1]
    closed = np.maximum(closed, 0.0)
    place = int(np.flatnonzero(closed > 5.0)[0])
    alarm = replace(detector, threshold=5.0).watch((day,))
    assert alarm.at == (place + 1) * 900
    assert alarm.since == 900 * int(np.flatnonzero(sums[: place + 1] == sums[: place + 1].min())[-1])


def test_null_days_raise_as_many_alarms_as_stated():
    """Of a rate of 5 %, on average over 10 sets of 28 null days and 150 days that were not seen."""
    fresh = spending_days(150, 2, planted=0)
    sets = [spending_days(28, 100 + number, planted=0) for number in range(10)]
    rates = [score_alert(Cusum.fitted(usual, false_alarms=0.05).fires, fresh).false_alarm_rate for usual in sets]
    assert 0.02 < np.mean(rates) < 0.08


def test_planted_days_are_found_sooner_than_by_a_plain_threshold():
    days = spending_days(120, 3)
    ours = score_alert(cusum().fires, days)
    plain = score_alert(PlainThreshold.fitted(null(), false_alarms=0.05).fires, days)
    assert ours.f1 > plain.f1
    assert ours.lost_usd < 0.6 * plain.lost_usd
    assert ours.at_stake_usd == pytest.approx(sum(day.lost(None) for day in days))
    assert ours.caught + ours.missed == sum(day.began is not None for day in days)


def test_the_estimated_beginning_is_near_the_true_one():
    days = [day for day in spending_days(60, 4, planted=1, kinds=("step",))]
    found = [(cusum().watch((day,)), day.began) for day in days]
    errors = [abs(alarm.since - began) for alarm, began in found if alarm is not None and alarm.at > began]
    assert len(errors) > 40
    assert np.median(errors) < 3600


def test_several_days_are_watched_as_one():
    days = (*spending_days(2, 7, planted=0), *spending_days(1, 11, planted=1, kinds=("step",)))
    alarm = replace(cusum(), threshold=12.0).watch(days)
    assert alarm.since <= alarm.at
    assert 2 * 86400 + days[2].began - 3600 < alarm.at <= 3 * 86400


def test_equal_seeds_give_equal_days_and_detectors():
    first, second = spending_days(3, 9), spending_days(3, 9)
    assert [d.began for d in first] == [d.began for d in second]
    assert all(np.array_equal(a.usd, b.usd) and np.array_equal(a.times, b.times) for a, b in zip(first, second, strict=True))
    assert Cusum.fitted(null(), false_alarms=0.05).threshold == cusum().threshold


def test_a_day_knows_its_loss():
    for kind in ("step", "share", "creep"):
        (day,) = spending_days(1, 11, planted=1, kinds=(kind,))
        assert day.lost(day.began - 1) == 0
        assert 0 < day.lost(day.began + 3600) < day.lost(None)
        assert day.lost(None) == pytest.approx(float(day.usd.sum() - day.usual_usd.sum()))
    (quiet,) = spending_days(1, 11, planted=0)
    assert (quiet.began, quiet.lost(None)) == (None, 0)


def test_an_alert_does_not_see_what_is_hidden():
    seen = []

    def nosy(day):
        seen.append((day.began, np.isnan(day.usual_usd).all()))

    score = score_alert(nosy, spending_days(5, 12, planted=1))
    assert seen == [(None, True)] * 5
    assert (score.missed, score.lost_usd) == (5, score.at_stake_usd)


def test_an_alarm_before_the_regression_is_false_and_catches_nothing():
    days = spending_days(4, 13, planted=1)
    score = score_alert(lambda day: 0.0, days)
    assert (score.caught, score.missed, score.false, score.f1) == (0, 4, 4, 0)
    assert score_alert(lambda day: None, spending_days(4, 13, planted=0)).f1 == 1


def test_hours_without_requests_say_nothing():
    sparse = spending_days(6, 14, planted=0, requests=40)
    detector = Cusum.fitted(sparse, false_alarms=0.1)
    assert np.isfinite(detector.usual).all()
    assert (detector.spread > 0).all()
    assert np.isfinite(detector.threshold)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: Cusum.fitted(null()[:4]), "5 or more"),
        (lambda: Cusum.fitted(null(), false_alarms=0.0001), "draws"),
        (lambda: Cusum.fitted(null(), reference=-1), "reference"),
        (lambda: spending_days(0, 1), "0 days"),
        (lambda: spending_days(1, 1, kinds=("leap",)), "choose from step"),
        (lambda: spending_days(1, 1, costs=[0.0]), "above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(bad, told):
    with pytest.raises(InvalidValue, match=told):
        bad()


@pytest.mark.parametrize("trace", ["azure2023_conv.csv.gz", "azure2023_code.csv.gz", "mooncake_conversation.jsonl.gz"])
def test_on_the_shape_of_a_real_trace(trace):
    """Requests of real traces, priced at 1 and 4 dollars a million: no log-normal was fitted to these tails.

    The stated rate holds, and less is lost than with a plain threshold of the same stated rate. That is by little where all
    requests cost about the same (Azure's conversations), and there, at 1 %, the plain one is the quicker of the two.
    """
    path = Path(os.environ.get("LABKIT_TRACES", "")) / trace
    if not path.is_file():
        pytest.skip(f"LABKIT_TRACES names no folder with {trace}: the detector was not tried on a real shape")
    from labkit.load import read_trace

    costs = [(row.input_tokens + 4 * row.output_tokens) / 1e6 for row in read_trace(path)]
    usual, fresh = (spending_days(days, seed, planted=0, costs=costs) for days, seed in ((28, 21), (400, 23)))
    ours, plain = (kind.fitted(usual, false_alarms=0.05) for kind in (Cusum, PlainThreshold))
    assert score_alert(ours.fires, fresh).false_alarm_rate <= AT_MOST
    days = spending_days(120, 22, costs=costs)
    assert score_alert(ours.fires, days).lost_usd < score_alert(plain.fires, days).lost_usd
    assert score_alert(ours.fires, days).f1 > 0.9
