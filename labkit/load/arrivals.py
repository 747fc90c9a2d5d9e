"""Arrival times of requests, in seconds from the start, ascending."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count, pairwise

from labkit.request import InvalidValue


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Arrivals of many independent users: exponential gaps, `rate` requests per second, without end; raises as `gamma`."""
    return gamma(rate, 1.0, seed)


def gamma(rate: float, cv: float, seed: int) -> Iterator[float]:
    """Arrivals with gamma-distributed gaps of mean 1/`rate` s and coefficient of variation `cv`, without end.

    A `cv` above 1 is burstier than Poisson. Raises `InvalidValue` where `rate` or `cv` is not a finite number above 0.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise InvalidValue(f"rate is {rate} requests per second; give a finite rate above 0")
    if not (cv > 0 and math.isfinite(cv)):
        raise InvalidValue(f"cv is {cv}; gaps need a spread above 0 (constant() has none)")
    rng = random.Random(seed)
    shape = 1 / cv**2

    def times() -> Iterator[float]:
        at = 0.0
        while True:
            at += rng.gammavariate(shape, 1 / (rate * shape))
            yield at

    return times()


def by_hour(rates: Sequence[float], hour_s: float, seed: int) -> Iterator[float]:
    """Poisson arrivals whose rate changes from slot to slot: `rates` per second, each for `hour_s` seconds; then it ends.

    A Poisson process of rate 1 on the axis of expected arrivals is mapped back to time (Çinlar, "Introduction to Stochastic
    Processes", 1975, section 4.7). For a day in one minute, give 24 rates and an `hour_s` of 2.5. Raises `InvalidValue`
    for rates below 0, an `hour_s` that is not above 0, and numbers that are not finite.
    """
    if not (hour_s > 0 and math.isfinite(hour_s)):
        raise InvalidValue(f"hour_s is {hour_s}; give each rate some seconds")
    for hour, rate in enumerate(rates):
        if not (rate >= 0 and math.isfinite(rate)):
            raise InvalidValue(f"the rate of hour {hour} is {rate} requests per second; give finite rates from 0")
    rng = random.Random(seed)

    def times() -> Iterator[float]:
        left = rng.expovariate(1)
        for hour, rate in enumerate(rates):
            passed = 0.0
            while rate > 0 and (gap := left / rate) < hour_s - passed:
                passed += gap
                yield hour * hour_s + passed
                left = rng.expovariate(1)
            left = max(0.0, left - rate * (hour_s - passed))

    return times()


def constant(rate: float) -> Iterator[float]:
    """One request every 1/`rate` seconds, the first at 0, without end; `InvalidValue` for a `rate` that is not above 0."""
    if not (rate > 0 and math.isfinite(rate)):
        raise InvalidValue(f"rate is {rate} requests per second; give a finite rate above 0")
    return (i / rate for i in count())


def from_times(times: Sequence[float], rate: float | None = None) -> Iterator[float]:
    """A trace's own arrivals, shifted to begin at 0; with `rate`, also stretched to that mean rate (per second).

    Bursts keep their shape. Raises `InvalidValue` for times that are empty, unsorted or not finite, and for a `rate` that is
    not above 0.
    """
    times = list(times)
    if not times:
        raise InvalidValue("there are no arrival times; a trace needs at least one")
    for i, at in enumerate(times):
        if not math.isfinite(at):
            raise InvalidValue(f"arrival {i} is {at}; times are finite seconds")
    for i, (before, at) in enumerate(pairwise(times)):
        if at < before:
            raise InvalidValue(f"arrival {i + 1} at {at} s comes before arrival {i} at {before} s; sort the trace")
    span = times[-1] - times[0]
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise InvalidValue(f"rate is {rate} requests per second; give a finite rate above 0")
    if rate is None or span == 0:
        return (at - times[0] for at in times)
    # Each time is divided by the span first: the factor new span / old span would overflow for spans below 1e-308 s.
    seconds = (len(times) - 1) / rate
    return ((at - times[0]) / span * seconds for at in times)
