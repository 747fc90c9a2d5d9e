"""Two clocks on the same requests: the client's, and the engine's own histograms. Both are right, about different things.

The engine's first-token time starts when its front end has parsed the request and ends when the token is put into the
response; the client's starts at the send and ends when the token is read. What lies between is the way there and back, the
HTTP and JSON on both sides, and how busy the client's own loop is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from labkit.engines import Histogram, MetricsSnapshot
from labkit.latency import Sample
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class TwoViews:
    """Means of one metric over the same requests, in seconds."""

    metric: str
    client: float
    engine: float

    @property
    def outside(self) -> float:
        """What the client waited for beyond what the engine counts, s; below 0 only by the clocks' resolution."""
        return self.client - self.engine


def two_views(samples: Iterable[Sample], inside: MetricsSnapshot) -> tuple[TwoViews, ...]:
    """TTFT, TPOT and E2E of `samples` beside the engine's account of them: `inside` is the metrics after less those before.

    Raises `InvalidValue` when the two do not speak of the same requests: somebody else was using the engine, some
    requests did not end, or the engine keeps no such histogram.
    """
    ended = [s for s in samples if s.timing is not None and s.usage is not None and not s.error]
    pairs = (
        ("TTFT", [s.ttft for s in ended], inside.time_to_first_token),
        ("TPOT", [s.tpot for s in ended], inside.time_per_output_token),
        ("E2E", [s.e2e for s in ended], inside.e2e_latency),
    )
    return tuple(_pair(metric, [v for v in values if v is not None], histogram) for metric, values, histogram in pairs)


def _pair(metric: str, values: list[float], histogram: Histogram | None) -> TwoViews:
    if histogram is None or histogram.mean is None:
        raise InvalidValue(f"the engine has no account of {metric} for these requests; take its metrics before and after")
    if histogram.count != len(values):
        raise InvalidValue(
            f"the client has {metric} of {len(values)} requests and the engine of {histogram.count:g}: somebody else uses "
            "the engine, or requests did not end; measure again, alone"
        )
    return TwoViews(metric, statistics.mean(values), histogram.mean)
