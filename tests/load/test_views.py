"""The client's clock beside the engine's histograms, on a live engine and on made-up ones."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

import pytest

from labkit.engines import connect
from labkit.engines.metrics import Histogram, MetricsSnapshot
from labkit.latency import Sample
from labkit.load import ExactLengths, closed_loop, two_views
from labkit.request import InvalidValue, Timing, Usage, complete

NOTHING = MetricsSnapshot(**{f.name: None for f in fields(MetricsSnapshot)})  # type: ignore[arg-type]


def histogram(*seconds: float) -> Histogram:
    return Histogram(len(seconds), sum(seconds), ((float("inf"), len(seconds)),))


def inside(n: int = 2) -> MetricsSnapshot:
    one = histogram(*[0.1] * n)
    return replace(NOTHING, time_to_first_token=one, time_per_output_token=one, e2e_latency=one)


SAMPLES = [Sample(0.0, Timing(0.0, 0.3, 0.8, 0.9), Usage(10, 6)), Sample(0.0, Timing(1.0, 1.5, 2.0, 2.1), Usage(10, 6))]


def test_means_of_both_sides_and_what_lies_between() -> None:
    views = {v.metric: v for v in two_views(SAMPLES, inside())}
    assert views["TTFT"].client == pytest.approx(0.4)
    assert views["E2E"].client == pytest.approx(1.0)
    assert views["TPOT"].client == pytest.approx((0.6 + 0.6) / 2 / 5)
    assert views["TTFT"].outside == pytest.approx(0.3)


def test_two_accounts_of_different_requests_are_not_compared() -> None:
    with pytest.raises(InvalidValue, match="TTFT of 2 requests and the engine of 3: somebody else"):
        two_views(SAMPLES, inside(3))
    failed = [SAMPLES[0], Sample(0.0, error="refused")]
    with pytest.raises(InvalidValue, match="of 1 requests and the engine of 2"):
        two_views(failed, inside())
    with pytest.raises(InvalidValue, match="no account of TTFT"):
        two_views(SAMPLES, NOTHING)


@pytest.mark.live
def test_a_live_engine_counts_less_than_its_client_and_never_more() -> None:
    async def scenario() -> None:
        async with await connect("vllm", "small", progress=str) as engine:
            make = ExactLengths(str(engine.tokenizer_path))
            await complete(engine, make(64, 8))
            before = await engine.metrics()
            run = await closed_loop(engine, [make(200, 24) for _ in range(20)], 4)
            views = {v.metric: v for v in two_views(run.samples, await engine.metrics() - before)}
            assert views["TTFT"].outside > 0
            assert views["E2E"].outside > 0
            # Most of the waiting is the engine's: otherwise one of the two measures something else.
            assert views["E2E"].engine > 0.5 * views["E2E"].client

    asyncio.run(scenario())
