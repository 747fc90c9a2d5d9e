"""Two measurements of the same requests: the client's times, and the engine's own histograms. They measure different things.

The engine's first-token time starts when its front end has parsed the request and ends when the token is put into the
response. The client's starts at the send and ends when the token is read. The difference is the way there and back, HTTP and
JSON on both sides, and the time that the client's own event loop is busy.
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
    """Means of one metric over the same requests, by the client and by the engine, in seconds."""

    metric: str
    client: float
    engine: float

    @property
    def outside(self) -> float:
        """The part of the client's time (s) that the engine does not count; below 0 only by the clocks' resolution."""
        return self.client - self.engine


def two_views(samples: Iterable[Sample], inside: MetricsSnapshot) -> tuple[TwoViews, ...]:
    """TTFT, TPOT and E2E of `samples`, each with the engine's own mean.

    `inside` is the engine's metrics after the load minus those before it. Raises `InvalidValue` where the two do not count
    the same requests: others used the engine too, some requests did not end, or the engine has no such histogram.
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
