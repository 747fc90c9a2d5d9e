"""What a log says about one question, as a number and as a sentence; or what it would need to say it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from labkit.extras import extra
from labkit.latency import percentile
from labkit.logs.call import Log, counted
from labkit.request import InvalidValue

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Need:
    """What a log lacks for a number (`lacks`), and what to write into it from now on (`log`)."""

    lacks: str
    log: str


@dataclass(frozen=True, slots=True)
class OwnNumber:
    """The answer to a chapter's question from one's own log.

    `number` is in `unit`, None where the log cannot tell it; then `needs` says why. `interval` holds the true value with
    95 % where the calls are a sample, as if they were independent of one another; None where nothing was sampled or the
    sample is too small. `sentence` is for a pull request. `rows` are further numbers: what, and its value.
    """

    chapter: str
    what: str
    number: float | None
    unit: str
    sentence: str
    interval: tuple[float, float] | None = None
    needs: tuple[Need, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A `value` of `n` calls, and its interval of 95 %; `low` and `high` are None where `n` is too small for one."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, None where one is missing."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def quantile(values: Iterable[float | None], q: float) -> Estimate | None:
    """The `q`-th percentile (0 to 100) of the values that are there, with its interval from order statistics; None for none.

    The interval runs between the sorted values whose ranks the true percentile lies between with 95 %, by the binomial
    distribution of how many values fall below it (Hahn and Meeker, Statistical Intervals, 2017, 5.2). No shape of the
    distribution is assumed, independence is.
    """
    known = sorted(value for value in values if value is not None)
    found = percentile(known, q)
    if found is None:
        return None
    with extra("analysis"):
        from scipy.stats import binom

    n, tail = len(known), (1 - LEVEL) / 2
    low, high = int(binom.ppf(tail, n, q / 100)), int(binom.ppf(1 - tail, n, q / 100)) + 1  # ranks, from 1
    return Estimate(found, known[low - 1] if low >= 1 else None, known[high - 1] if high <= n else None, n)


def share(hits: int, n: int) -> Estimate | None:
    """The share of `hits` among `n` calls, with the exact interval of Clopper and Pearson (1934); None for no calls."""
    if not 0 <= hits <= n:
        raise InvalidValue(f"{hits} of {n}; counts go from 0 to the number of calls")
    if not n:
        return None
    with extra("analysis"):
        from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n)


def ratio(parts: Iterable[tuple[float, float]]) -> Estimate | None:
    """Σ part / Σ whole over calls, with the interval of the ratio estimator (Cochran, Sampling Techniques, 1977, 2.11).

    None where the wholes add up to 0. No interval for fewer than 30 calls: its normal approximation needs as many.
    """
    pairs = list(parts)
    whole = math.fsum(b for _, b in pairs)
    if not whole > 0:
        return None
    n, value = len(pairs), math.fsum(a for a, _ in pairs) / whole
    if n < 30:
        return Estimate(value, None, None, n)
    spread = math.sqrt(math.fsum((a - value * b) ** 2 for a, b in pairs) * n / (n - 1)) / whole
    return Estimate(value, value - 1.96 * spread, value + 1.96 * spread, n)


def percent(found: Estimate) -> str:
    """A share in words, with its interval."""
    if found.interval is None:
        return f"{100 * found.value:.1f} %"
    low, high = (max(0.0, min(1.0, end)) for end in found.interval)
    return f"{100 * found.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def in_percent(found: Estimate | None) -> tuple[float | None, tuple[float, float] | None]:
    """A share and its interval, both in %."""
    if found is None:
        return None, None
    ends = None if found.interval is None else tuple(100 * max(0.0, min(1.0, end)) for end in found.interval)
    return 100 * found.value, None if ends is None else (ends[0], ends[1])


def seconds(value: float) -> str:
    """A time in words, in the unit that fits it."""
    if value < 0.9995:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def timed(found: Estimate) -> str:
    """A time in words, with its interval."""
    interval = "" if found.interval is None else f" ({seconds(found.interval[0])} to {seconds(found.interval[1])})"
    return seconds(found.value) + interval


def of(log: Log) -> str:
    """How a sentence names its log: file and calls, and how long it ran."""
    ran = "" if not log.seconds else f" over {seconds(log.seconds)}"
    return f"{log.name} ({counted(len(log), 'call')}{ran})"


def cannot(chapter: str, what: str, unit: str, log: Log, *needs: Need, rows: tuple[tuple[str, str], ...] = ()) -> OwnNumber:
    """The number of a log that cannot tell it, with what to log."""
    why = "; ".join(f"it has no {need.lacks}; log {need.log}" for need in needs)
    return OwnNumber(chapter, what, None, unit, f"{of(log)} cannot tell {what}: {why}.", None, needs, rows)


USAGE = Need("token counts", "each response's usage object (with streams: stream_options.include_usage)")
TIME = Need("time of each call", "when each request was sent, with its time zone")
FIRST_TOKEN = Need("time of the first token", "when the first non-empty chunk of each streamed answer came")
DURATION = Need("duration of the calls", "when each answer ended")
STATUS = Need("outcome of the calls", "whether each call completed, failed, or was cancelled by its caller")
TEXTS = Need("prompts", "each request's messages, or a hash of them, under the access rules of your users' texts")
