"""A storm by the lab's own levers, the same storm by a list of events, and the line between them in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from labkit.request import InvalidValue
from labkit.resilience import Backoff, Ratio, Weather, phase_diagram, sketch, storm
from labkit.routing import Breaker

SMALL = Weather(load=0.7, slots=4, lasts_s=90, outage_at=10.0, outage_s=10.0)
"""8 answers a second at most."""


@pytest.mark.parametrize("hears", [False, True])
@pytest.mark.parametrize("budget", [None, Ratio(0.2, 0.0), Ratio(0.1, 0.3)])
@pytest.mark.parametrize("jitter", ["full", "none"])
def test_levers_and_events_agree_second_by_second(hears, budget, jitter):
    weather = replace(SMALL, hears=hears, budget=budget, backoff=Backoff(jitter=jitter), lasts_s=60)
    by_levers = storm(weather)
    assert sum(by_levers.attempts) > sum(by_levers.offered) > 0
    assert by_levers == sketch(weather)


def test_the_outage_is_over_and_the_storm_is_not_until_a_budget_ends_it():
    alone, held = storm(SMALL), storm(replace(SMALL, budget=Ratio(0.2, 0.0)))
    assert not alone.recovered
    assert sum(alone.answered[-20:]) < 0.1 * sum(alone.offered[-20:])
    assert held.recovered
    assert sum(held.answered[-20:]) > 0.9 * sum(held.offered[-20:])
    assert alone.offered == held.offered
    assert alone.multiplier > 1.5 * held.multiplier


def test_without_an_outage_nothing_would_have_happened():
    """The load alone is no storm: up to the outage, all are answered."""
    run = storm(SMALL)
    assert sum(run.answered[:9]) >= sum(run.offered[:8])


def test_a_breaker_ends_the_storm_too():
    run = storm(SMALL, breaker=Breaker(failures=5, cool_down_s=5.0))
    assert sum(run.answered[-20:]) > sum(storm(SMALL).answered[-20:])


def test_the_phase_diagram_is_that_of_the_closed_form():
    """An engine that does not hear its callers leave comes back if, and only if, it can carry the load with all retries.

    Points within a tenth of the line are left out: near it, it takes longer than the run.
    """
    weather = Weather(lasts_s=400, slots=10)
    points = phase_diagram(weather, (0.3, 0.5, 0.6, 0.7, 0.85), (1, 2, 3, 4), (None, 0.05, 0.2))
    clear = [point for point in points if abs(point.worst_load - 1) > 0.1]
    assert len(clear) >= 40
    assert {point.worst_load < 1 for point in clear} == {True, False}
    assert [point.recovered for point in clear] == [point.worst_load < 1 for point in clear]


def test_the_worst_load_by_hand():
    weather = Weather(load=0.5, attempts=3)  # 10 arrivals a second, of 20 that it can carry
    assert weather.arrivals_per_s == 10
    assert weather.worst_load == 1.5
    assert replace(weather, budget=Ratio(0.2, 0.0)).worst_load == pytest.approx(0.6)
    assert replace(weather, budget=Ratio(0.2, 3.0)).worst_load == pytest.approx(0.75)


def test_work_stands_still_in_the_outage():
    weather = Weather(outage_at=20.0, outage_s=10.0, service_s=0.5, prompt=200, output=50)
    assert [weather.works_until(at) for at in (19.0, 19.75, 20.0, 25.0, 30.0)] == [19.5, 30.25, 30.5, 30.5, 30.5]
    assert weather.written(19.75, 25.0) == 225
    assert weather.written(20.0, 29.0) == 0
    assert weather.written(19.75, 30.25) == 250


def test_every_token_is_counted_once():
    """By an engine that hears, tokens are paid for answers, and for work that was dropped: never more than slots can do."""
    run = storm(replace(SMALL, hears=True))
    whole = run.weather.prompt + run.weather.output
    assert run.useful == tuple(whole * answered for answered in run.answered)
    assert sum(run.paid) >= sum(run.useful)
    idle = replace(SMALL, load=0.05, outage_s=0.001, hears=True)
    quiet = storm(idle)
    assert sum(quiet.paid) == sum(quiet.useful) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"load": 0.0}, {"load": math.nan}, {"attempts": 0}, {"slots": 1.5}, {"timeout_s": 0.5}, {"lasts_s": 0}, {"seed": -1},
        {"budget": 0.2},
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings)) if "timeout_s" not in settings else "wait longer"):
        Weather(**settings)
