"""Latency, derived only from raw timestamps.

A load generator keeps a `Sample` of each request. Every latency is a property of it, None where it is not defined. TTFT runs
from the send to the first non-empty content; TPOT is (E2E − TTFT) / (output tokens − 1); inter-chunk latencies are the gaps
between streamed chunks, which may hold several tokens. Other tools define them differently: guidellm's TPOT includes TTFT,
and a server's TTFT starts at its front end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from labkit.request import InvalidValue, Timing, Usage


@dataclass(frozen=True, slots=True)
class Sample:
    """One request under load. Times are in seconds of one clock.

    `due` is when it should have been sent; `chunks` holds (arrival, tokens) of each chunk. For a request that did not end,
    `error` says why, and `timing` and `usage` hold what was known by then (None for nothing).
    """

    due: float
    timing: Timing | None = None
    usage: Usage | None = None
    chunks: tuple[tuple[float, int], ...] = ()
    error: str = ""

    @property
    def ttft(self) -> float | None:
        """Time to first token from the send, s."""
        return None if self.timing is None else self.timing.ttft

    @property
    def ttft_from_due(self) -> float | None:
        """Time to first token from when the request was due, s; unlike `ttft`, it includes the delay of a late sender."""
        return None if self.timing is None or self.timing.first_token is None else self.timing.first_token - self.due

    @property
    def send_delay(self) -> float | None:
        """How late the request was sent, s."""
        return None if self.timing is None else self.timing.sent - self.due

    @property
    def e2e(self) -> float | None:
        """End to end, s."""
        return None if self.timing is None else self.timing.e2e

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, s."""
        return None if self.timing is None or self.usage is None else self.timing.tpot(self.usage.output_tokens)

    @property
    def inter_chunk(self) -> tuple[float, ...]:
        """Gaps between the request's chunks, s; empty for fewer than two chunks."""
        return tuple(b - a for (a, _), (b, _) in pairwise(self.chunks))


METRICS: dict[str, Callable[[Sample], float | None]] = {
    "TTFT": lambda sample: sample.ttft,
    "TPOT": lambda sample: sample.tpot,
    "E2E": lambda sample: sample.e2e,
}


@dataclass(frozen=True, slots=True)
class SLO:
    """Objectives per request, in seconds; None for no limit.

    An answer of one token has no TPOT, so it meets any TPOT limit. Raises `InvalidValue` without a limit and for one that is
    not above 0.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def __post_init__(self) -> None:
        limits = (self.ttft, self.tpot, self.e2e)
        if all(limit is None for limit in limits):
            raise InvalidValue("an SLO without a limit is met by everything; set ttft, tpot or e2e in seconds")
        if any(limit is not None and not limit > 0 for limit in limits):
            raise InvalidValue(f"{self} has a limit that is no time; limits are seconds above 0")

    def met(self, sample: Sample) -> bool:
        """Whether the request ended and kept every limit."""
        if sample.e2e is None or sample.ttft is None:
            return False
        pairs = ((self.ttft, sample.ttft), (self.tpot, sample.tpot), (self.e2e, sample.e2e))
        return all(limit is None or value is None or value <= limit for limit, value in pairs)


def goodput(samples: Sequence[Sample], slo: SLO, seconds: float) -> float:
    """Requests per second that met every limit, over `seconds` of load (Zhong et al., "DistServe", OSDI 2024).

    Raises `InvalidValue` for `seconds` that are not above 0.
    """
    if not seconds > 0:
        raise InvalidValue(f"a load of {seconds} s has no rate; give the seconds it ran")
    return sum(slo.met(sample) for sample in samples) / seconds


def percentile(values: Iterable[float | None], q: float) -> float | None:
    """The `q`-th percentile (0 to 100) of the values that are not None, or None where there are none.

    Linear between neighbours, as numpy's default. Raises `InvalidValue` for a `q` outside 0 to 100.
    """
    if not 0 <= q <= 100:
        raise InvalidValue(f"percentile {q} is not between 0 and 100; the 95th is 95, not 0.95")
    defined = [value for value in values if value is not None]
    return float(np.percentile(defined, q)) if defined else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A load in numbers: rates over a window of `seconds`, and percentiles in seconds as {metric: {percentile: value}}."""

    requests: int
    failed: int
    seconds: float
    output_tokens_per_s: float
    requests_per_s: float
    percentiles: dict[str, dict[float, float | None]]


def summary(samples: Sequence[Sample], seconds: float, points: Sequence[float] = (50, 90, 95, 99)) -> Summary:
    """Summarise the `samples` of a window of `seconds`: rates and percentiles of those that ended.

    `points` are the percentiles (0 to 100). Raises `InvalidValue` for a window without length.
    """
    if not seconds > 0:
        raise InvalidValue(f"a window of {seconds} s has no rates; give its length in seconds")
    ended = [sample for sample in samples if sample.timing is not None and not sample.error]
    tokens = sum(sample.usage.output_tokens for sample in ended if sample.usage is not None)
    return Summary(
        len(samples),
        len(samples) - len(ended),
        seconds,
        tokens / seconds,
        len(ended) / seconds,
        {name: {q: percentile([of(s) for s in ended], q) for q in points} for name, of in METRICS.items()},
    )
