"""Snapshots of the engine's metrics against prometheus_client's own exposition and against the client's token counts."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as PrometheusHistogram

from labkit.engines import Engine, EngineRestarted, MetricMissing, MetricsSnapshot, parse_metrics
from labkit.request import EngineError, InvalidValue, Request, complete

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
    with pytest.raises(InvalidValue, match=r"0\.95, not 95"):
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


def caches(*labels: dict[str, str]) -> MetricsSnapshot:
    """A snapshot of engines that say this of their KV caches, as vLLM's own exporter writes it: a gauge that is always 1."""
    registry = CollectorRegistry()
    names = sorted({name for one in labels for name in one} | {"engine"})
    gauge = Gauge("vllm:cache_config_info", "", names, registry=registry)
    for engine, one in enumerate(labels):
        gauge.labels(**{"engine": str(engine), **{name: one.get(name, "None") for name in names if name != "engine"}}).set(1)
    return parse_metrics(generate_latest(registry).decode())


@pytest.mark.parametrize(
    ("engines", "tokens"),
    [
        ([{"num_gpu_blocks": "1000", "block_size": "16"}], 16_000),
        ([{"num_gpu_blocks": "1000", "block_size": "16"}, {"num_gpu_blocks": "900", "block_size": "16"}], 30_400),
        ([{"num_gpu_blocks": str(n), "block_size": str(b)} for n, b in ((10, 16), (20, 32), (30, 64))], 160 + 640 + 1920),
        # What vLLM says itself counts: groups of layers hold other numbers of tokens in a block. (vllm#51163)
        ([{"num_gpu_blocks": "1000", "block_size": "4", "kv_cache_size_tokens": "256000"}], 256_000),
        # Of several engines vLLM tells each one's own tokens, and with each the blocks of all.
        ([{"num_gpu_blocks": "2000", "block_size": "16", "kv_cache_size_tokens": "16000"}] * 2, 32_000),
        ([{"num_gpu_blocks": "2000", "block_size": "16"}] * 2, None),
        (
            [
                {"num_gpu_blocks": "1000", "block_size": "4", "kv_cache_size_tokens": "256000"},
                {"num_gpu_blocks": "900", "block_size": "16"},
            ],
            256_000 + 14_400,
        ),
        ([{"num_gpu_blocks": "1000", "block_size": "528", "mamba_block_size": "528"}], None),
        ([{"num_gpu_blocks": "None", "block_size": "16"}], None),
        ([{"num_gpu_blocks": "1000"}], None),
        ([{"num_gpu_blocks": "1000", "block_size": "16"}, {"num_gpu_blocks": "None", "block_size": "16"}], None),
        ([{"num_gpu_blocks": "1000", "block_size": "16", "kv_cache_size_tokens": "inf"}], 16_000),
        ([{"num_gpu_blocks": "-1", "block_size": "16"}], None),
        ([{"num_gpu_blocks": "nan", "block_size": "16"}], None),
    ],
)
def test_kv_tokens_of_all_engines_add_up_or_are_not_known(engines: list[dict[str, str]], tokens: int | None) -> None:
    assert caches(*engines).kv_cache_tokens == tokens


def test_of_several_engines_only_what_all_say_is_said_of_the_cache() -> None:
    both = caches({"num_gpu_blocks": "1000", "block_size": "16"}, {"num_gpu_blocks": "900", "block_size": "16"})
    assert both.cache_config == {"block_size": "16"}
    assert caches({"num_gpu_blocks": "1000"}).cache_config == {"num_gpu_blocks": "1000", "engine": "0"}


@given(st.lists(st.lists(st.floats(0.01, 9), max_size=20), min_size=2, max_size=4))
def test_histograms_of_models_with_other_bounds_are_one_histogram_over_their_common_bounds(
    observed: list[list[float]],
) -> None:
    text, common = [], {1.0, 5.0}
    for model, values in enumerate(observed):
        registry = CollectorRegistry()
        bounds = sorted(common | {0.1 * (model + 2)})
        histogram = PrometheusHistogram(
            "vllm:time_to_first_token_seconds", "", ["model_name", "engine"], buckets=bounds, registry=registry
        ).labels(f"m{model}", "0")
        for value in values:
            histogram.observe(value)
        text.append(generate_latest(registry).decode())
    # As behind one address: one family, each model with its labels.
    lines = [line for part in text for line in part.splitlines() if not line.startswith("#")]
    merged = parse_metrics("\n".join(["# TYPE vllm:time_to_first_token_seconds histogram", *lines]) + "\n")
    together = [value for values in observed for value in values]
    histogram = merged.time_to_first_token
    assert dict(histogram.buckets) == {
        bound: sum(value <= bound for value in together) for bound in (*sorted(common), float("inf"))
    }
    assert histogram.count == len(together)
    assert histogram.sum == pytest.approx(sum(together))


@pytest.mark.parametrize("odd", ["NaN", "+Inf", "-Inf"])
def test_a_value_that_is_no_number_is_not_measured(odd: str) -> None:
    snapshot = parse_metrics(
        f"""
vllm:generation_tokens_total{{engine="0"}} 5
vllm:generation_tokens_total{{engine="1"}} {odd}
vllm:prompt_tokens_total 7
vllm:num_requests_running {odd}
vllm:kv_cache_usage_perc{{engine="0"}} {odd}
vllm:kv_cache_usage_perc{{engine="1"}} 0.25
vllm:time_to_first_token_seconds_bucket{{le="1.0"}} {odd}
vllm:time_to_first_token_seconds_bucket{{le="+Inf"}} 3
vllm:time_to_first_token_seconds_count 3
vllm:time_to_first_token_seconds_sum 2
vllm:e2e_request_latency_seconds_bucket{{le="+Inf"}} 3
vllm:e2e_request_latency_seconds_count 3
vllm:e2e_request_latency_seconds_sum {odd}
"""
    )
    assert (snapshot.generation_tokens, snapshot.requests_running, snapshot.time_to_first_token) == (None, None, None)
    assert (snapshot.prompt_tokens, snapshot.kv_cache_usage) == (7, 0.25)
    assert (snapshot.e2e_latency.count, snapshot.e2e_latency.mean) == (3, None)
    later = parse_metrics("vllm:generation_tokens_total 50\nvllm:prompt_tokens_total 9\n")
    run = later - parse_metrics(f"vllm:generation_tokens_total {odd}\nvllm:prompt_tokens_total 7\n")
    assert (run.generation_tokens, run.prompt_tokens) == (None, 2), "50 would be what it counted since its start"


def test_without_comments_every_metric_is_found_all_the_same() -> None:
    exporter = Exporter()
    exporter.ttft.observe(0.3)
    exporter.tokens.labels("0").inc(5)
    text = generate_latest(exporter.registry).decode()
    bare = parse_metrics("\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n")
    assert bare.time_to_first_token == exporter.snapshot().time_to_first_token
    assert bare.generation_tokens == 5


@pytest.mark.parametrize("gone", [False, True])
def test_one_of_several_engines_that_restarted_is_noticed_although_the_sum_went_on(gone: bool) -> None:
    before, after = Exporter(), Exporter()
    for engine, (early, late) in {"0": (10, 500), "1": (20, 4)}.items():
        before.tokens.labels(engine).inc(early)
        if not (gone and engine == "1"):
            after.tokens.labels(engine).inc(late)
    with pytest.raises(EngineRestarted, match=r"generation_tokens_total of engine=1 (is gone|went from 20 back to 4)"):
        after.snapshot() - before.snapshot()


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>404</body></html>",
        "vllm:prompt_tokens_total{engine=",
        "vllm:prompt_tokens_total ten\n",
        'vllm:time_to_first_token_seconds_bucket{le="soon"} 1\n',
        "vllm:time_to_first_token_seconds_bucket 1\n",
        'vllm:time_to_first_token_seconds_bucket{le="NaN"} 1\n',
        "{}",
        '{"error": "not found"}',
    ],
)
def test_what_is_no_metrics_text_is_the_labs_error(text: str) -> None:
    with pytest.raises((EngineError, MetricMissing)):
        parse_metrics(text)


@given(st.text())
def test_any_text_is_a_snapshot_or_the_labs_error(text: str) -> None:
    def parsed() -> object:
        try:
            return parse_metrics("vllm:prompt_tokens_total 1\n" + text)
        except (EngineError, MetricMissing) as error:
            return error

    assert isinstance(parsed(), MetricsSnapshot | EngineError | MetricMissing)


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
    assert live.log is not None
    said = re.search(r"KV cache size: ([\d,]+) tokens", live.log.read_text())
    assert run.kv_cache_tokens == int(said[1].replace(",", "")), "as its log has it"
    assert run.preemptions == 0
