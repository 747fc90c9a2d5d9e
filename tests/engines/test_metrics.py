"""Snapshots of the engine's metrics against prometheus_client's own exposition and against the client's token counts."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as PrometheusHistogram

from labkit.engines import Engine, EngineRestarted, MetricMissing, parse_metrics
from labkit.request import InvalidRequest, Request, complete

BOUNDS = (0.1, 0.5, 1.0, 5.0)


class Exporter:
    """An engine's registry, written by the library whose text we read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tokens = Counter("vllm:generation_tokens", "", ["engine"], registry=self.registry)
        self.running = Gauge("vllm:num_requests_running", "", ["engine"], registry=self.registry)
        self.usage = Gauge("vllm:kv_cache_usage_perc", "", ["engine"], registry=self.registry)
        self.ttft = PrometheusHistogram("vllm:time_to_first_token_seconds", "", buckets=BOUNDS, registry=self.registry)

    def snapshot(self):
        return parse_metrics(generate_latest(self.registry).decode())


def test_counters_add_up_over_engines_and_usage_is_the_fullest() -> None:
    exporter = Exporter()
    exporter.tokens.labels("0").inc(5)
    exporter.tokens.labels("1").inc(7)
    exporter.running.labels("0").set(2)
    exporter.usage.labels("0").set(0.25)
    exporter.usage.labels("1").set(0.75)
    snapshot = exporter.snapshot()
    assert (snapshot.generation_tokens, snapshot.requests_running, snapshot.kv_cache_usage) == (12, 2, 0.75)
    assert snapshot.value("vllm:generation_tokens_total") == 12


def test_a_metric_that_is_not_exported_is_none_and_never_zero() -> None:
    snapshot = Exporter().snapshot()
    assert snapshot.preemptions is None
    assert snapshot.e2e_latency is None
    assert snapshot.cached_share is None
    assert snapshot.kv_cache_tokens is None
    assert (snapshot - snapshot).preemptions is None
    with pytest.raises(MetricMissing, match="did you mean vllm:time_to_first_token_seconds_sum"):
        snapshot.value("vllm:time_to_first_token_second_sum")


def test_text_without_vllm_metrics_is_refused() -> None:
    with pytest.raises(MetricMissing, match="live vLLM engine only"):
        parse_metrics("# TYPE up gauge\nup 1\n")


@given(st.lists(st.floats(0.001, 20)), st.lists(st.floats(0.001, 20), min_size=1))
def test_a_difference_is_what_happened_in_between(earlier: list[float], later: list[float]) -> None:
    exporter, only_later = Exporter(), Exporter()
    for value in earlier:
        exporter.ttft.observe(value)
        exporter.tokens.labels("0").inc(3)
    before = exporter.snapshot()
    for value in later:
        exporter.ttft.observe(value)
        exporter.tokens.labels("0").inc(3)
        only_later.ttft.observe(value)
    run = exporter.snapshot() - before
    assert run.generation_tokens == 3 * len(later)
    expected = only_later.snapshot().time_to_first_token
    assert run.time_to_first_token.buckets == expected.buckets
    assert run.time_to_first_token.mean == pytest.approx(sum(later) / len(later))


@given(st.lists(st.floats(0.001, 4.99), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    exporter = Exporter()
    for value in values:
        exporter.ttft.observe(value)
    estimate = exporter.snapshot().time_to_first_token.quantile(q)
    # The smallest value with at least a share q of the values at or below it; for q = 0 PromQL names the lower bound of it.
    rank = max(1, next(n for n in range(len(values) + 1) if n >= q * len(values)))
    true = sorted(values)[rank - 1]
    low = max((b for b in (0.0, *BOUNDS) if b < true), default=0.0)
    high = min(b for b in BOUNDS if b >= true)
    assert low <= estimate <= high


def test_a_quantile_interpolates_as_promql_does() -> None:
    exporter = Exporter()
    for value in (0.2, 0.3, 0.4, 0.45):
        exporter.ttft.observe(value)
    histogram = exporter.snapshot().time_to_first_token
    assert histogram.quantile(0.5) == pytest.approx(0.1 + (0.5 - 0.1) * 2 / 4)
    exporter.ttft.observe(50)
    assert exporter.snapshot().time_to_first_token.quantile(1.0) == 5.0, "beyond the last bound only that bound is known"
    with pytest.raises(InvalidRequest, match=r"0\.95, not 95"):
        histogram.quantile(95)


def test_a_histogram_without_observations_has_no_mean() -> None:
    empty = Exporter().snapshot().time_to_first_token
    assert (empty.mean, empty.quantile(0.5)) == (None, None)


def test_a_counter_that_went_backwards_means_a_restart() -> None:
    old, new = Exporter(), Exporter()
    old.tokens.labels("0").inc(10)
    new.tokens.labels("0").inc(4)
    with pytest.raises(EngineRestarted, match=r"generation_tokens went from 10 back to 4"):
        new.snapshot() - old.snapshot()


def test_a_restart_is_seen_even_when_the_counters_have_caught_up() -> None:
    snapshots = []
    for started in (100, 200):
        exporter = Exporter()
        exporter.tokens.labels("0").inc(started)
        Gauge("process_start_time_seconds", "", registry=exporter.registry).set(started)
        snapshots.append(exporter.snapshot())
    with pytest.raises(EngineRestarted, match="different engine processes"):
        snapshots[1] - snapshots[0]


@pytest.mark.live
def test_the_engine_counts_the_tokens_the_client_counts(live: Engine) -> None:
    async def scenario():
        before = await live.metrics()
        prompts = ["one tent", "two tents and a stove", "three " * 30, "three " * 30]
        answers = await asyncio.gather(*(complete(live, Request(p, max_tokens=5 + i)) for i, p in enumerate(prompts)))
        return [answer.done.usage for answer in answers], await live.metrics() - before

    usages, run = asyncio.run(scenario())
    assert run.prompt_tokens == sum(usage.input_tokens for usage in usages)
    assert run.generation_tokens == sum(usage.output_tokens for usage in usages)
    assert run.cached_prompt_tokens == sum(usage.cached_tokens for usage in usages)
    assert run.requests_finished == len(usages) == run.time_to_first_token.count
    assert run.requests_running == 0
    assert run.kv_cache_tokens > live.context_window
    assert run.preemptions == 0
