"""The engine's own Prometheus metrics as typed snapshots, and what happened between two of them.

    before = await engine.metrics()
    ...
    run = await engine.metrics() - before
    run.generation_tokens, run.time_to_first_token.mean

A metric the engine does not export is None, never 0: "not measured" and "none" are different findings.
vLLM's counters count tokens, not requests; use differences over a run, never the averages it logs. Cached/total prompt
tokens are the honest prefix hit rate: `prefix_cache_queries` and `_hits` count a request again each time it waits.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from labkit.engines.errors import EngineRestarted, MetricMissing
from labkit.request.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Histogram:
    """A Prometheus histogram: `buckets` are (upper bound, observations up to it), the last bound is infinite."""

    count: float
    sum: float
    buckets: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float | None:
        """Exact mean of the observations; None without any."""
        return self.sum / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """Estimate of the `q` quantile, 0 to 1, by linear interpolation within its bucket, as PromQL's histogram_quantile.

        Its error is the width of the bucket it falls in; beyond the last finite bound it can only name that bound. None
        without observations.
        """
        if not 0 <= q <= 1:
            raise InvalidRequest(f"quantile {q}: use a value from 0 to 1 (0.95, not 95)")
        if not self.count:
            return None
        rank = q * self.count
        for (low, below), (high, upto) in pairwise(((0.0, 0.0), *self.buckets)):
            if upto >= rank and upto > below:
                return low if math.isinf(high) else low + (high - low) * (rank - below) / (upto - below)
        return max((bound for bound, _ in self.buckets if math.isfinite(bound)), default=None)

    def __sub__(self, before: Histogram) -> Histogram:
        earlier = dict(before.buckets)
        buckets = tuple((bound, upto - earlier.get(bound, 0.0)) for bound, upto in self.buckets)
        if self.count < before.count or any(upto < 0 for _, upto in buckets):
            raise EngineRestarted(_RESTARTED.format(name="a histogram", before=before.count, after=self.count))
        return Histogram(self.count - before.count, self.sum - before.sum, buckets)


_RESTARTED = "{name} went from {before:g} back to {after:g}: the engine restarted in between; take both snapshots of one run"

# field -> Prometheus sample or family
_GAUGES = {
    "kv_cache_usage": "vllm:kv_cache_usage_perc",
    "requests_running": "vllm:num_requests_running",
    "requests_waiting": "vllm:num_requests_waiting",
}
_COUNTERS = {
    "prompt_tokens": "vllm:prompt_tokens",
    "cached_prompt_tokens": "vllm:prompt_tokens_cached",
    "generation_tokens": "vllm:generation_tokens",
    "requests_finished": "vllm:request_success",
    "prefix_cache_queries": "vllm:prefix_cache_queries",
    "prefix_cache_hits": "vllm:prefix_cache_hits",
    "preemptions": "vllm:num_preemptions",
    "draft_rounds": "vllm:spec_decode_num_drafts",
    "draft_tokens": "vllm:spec_decode_num_draft_tokens",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens",
}
_HISTOGRAMS = {
    "time_to_first_token": "vllm:time_to_first_token_seconds",
    "inter_token_latency": "vllm:inter_token_latency_seconds",
    "time_per_output_token": "vllm:request_time_per_output_token_seconds",
    "e2e_latency": "vllm:e2e_request_latency_seconds",
    "queue_time": "vllm:request_queue_time_seconds",
    "prefill_time": "vllm:request_prefill_time_seconds",
    "decode_time": "vllm:request_decode_time_seconds",
    "inference_time": "vllm:request_inference_time_seconds",
    "iteration_tokens": "vllm:iteration_tokens_total",
}


@dataclass(frozen=True)
class MetricsSnapshot:
    """The metrics at one moment, or, as the difference of two, what happened between them.

    Counters are tokens unless named otherwise, since the engine's start (or between the snapshots); gauges are of the
    moment (the later one's in a difference); latencies are histograms in seconds, seen from the server, so its first-token
    time starts at its own front end and not at the client's send. `kv_cache_usage` is a fraction, 0 to 1. `cache_config`
    is what the engine says of its KV cache (num_gpu_blocks, block_size …). `process_started` is in seconds since 1970.
    """

    kv_cache_usage: float | None
    requests_running: float | None
    requests_waiting: float | None
    prompt_tokens: float | None
    cached_prompt_tokens: float | None
    generation_tokens: float | None
    requests_finished: float | None
    prefix_cache_queries: float | None
    prefix_cache_hits: float | None
    preemptions: float | None
    draft_rounds: float | None
    draft_tokens: float | None
    accepted_tokens: float | None
    time_to_first_token: Histogram | None
    inter_token_latency: Histogram | None
    time_per_output_token: Histogram | None
    e2e_latency: Histogram | None
    queue_time: Histogram | None
    prefill_time: Histogram | None
    decode_time: Histogram | None
    inference_time: Histogram | None
    iteration_tokens: Histogram | None
    cache_config: Mapping[str, str]
    process_started: float | None
    samples: Mapping[str, float]

    @cached_property
    def cached_share(self) -> float | None:
        """Cached prompt tokens per prompt token; None when no prompt was counted."""
        if self.cached_prompt_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_prompt_tokens / self.prompt_tokens

    @cached_property
    def kv_cache_tokens(self) -> int | None:
        """How many tokens the KV cache holds: blocks × block size; None when the engine does not say."""
        try:
            return int(self.cache_config["num_gpu_blocks"]) * int(self.cache_config["block_size"])
        except (KeyError, ValueError):
            return None

    def value(self, sample: str) -> float:
        """Any sample by its exposed name ("vllm:generation_tokens_total"), summed over labels.

        Raises `MetricMissing` with the closest name.
        """
        if sample in self.samples:
            return self.samples[sample]
        close = difflib.get_close_matches(sample, self.samples, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise MetricMissing(f"the engine exports no metric {sample!r}{hint}")

    def __sub__(self, before: MetricsSnapshot) -> MetricsSnapshot:
        if self.process_started != before.process_started:
            raise EngineRestarted("the two snapshots are of different engine processes; take both snapshots of one run")
        counters: dict[str, Any] = {
            name: _difference(name, getattr(self, name), getattr(before, name)) for name in _COUNTERS
        }
        histograms: dict[str, Any] = {}
        for name in _HISTOGRAMS:
            after, earlier = getattr(self, name), getattr(before, name)
            histograms[name] = None if after is None else after if earlier is None else after - earlier
        samples = {n: v - before.samples.get(n, 0.0) if _cumulative(n) else v for n, v in self.samples.items()}
        return replace(self, **counters, **histograms, samples=samples)


def counters_of(run: MetricsSnapshot) -> dict[str, float]:
    """The counters of a run (the difference of two snapshots), those that the engine exports."""
    return {name: value for name in _COUNTERS if (value := getattr(run, name)) is not None}


def counted(counters: Mapping[str, float]) -> MetricsSnapshot:
    """A snapshot that knows these counters and nothing else. Raises `MetricMissing` for a name that is no counter."""
    if unknown := sorted(counters.keys() - _COUNTERS.keys()):
        raise MetricMissing(f"{', '.join(unknown)} are no counters; those that are: {', '.join(_COUNTERS)}")
    nothing: dict[str, Any] = dict.fromkeys((*_GAUGES, *_HISTOGRAMS))
    known: dict[str, Any] = {name: counters.get(name) for name in _COUNTERS}
    return MetricsSnapshot(**nothing, **known, cache_config={}, process_started=None, samples={})


def parse_metrics(text: str) -> MetricsSnapshot:
    """A snapshot from the text of `/metrics`. Raises `MetricMissing` when it holds none of vLLM's metrics."""
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    if not any(name.startswith("vllm:") for name in families):
        raise MetricMissing("this endpoint exports no vLLM metrics; they come with a live vLLM engine only")
    totals: dict[str, float] = {}
    for samples in families.values():
        for sample in samples:
            if not sample.name.endswith("_bucket"):
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    gauges = {name: totals.get(metric) for name, metric in _GAUGES.items()}
    usages = [sample.value for sample in families.get(_GAUGES["kv_cache_usage"], ())]
    gauges["kv_cache_usage"] = max(usages, default=None)  # of several engines the fullest, not their sum
    counters = {name: totals.get(f"{metric}_total") for name, metric in _COUNTERS.items()}
    histograms = {name: _histogram(families.get(metric, ())) for name, metric in _HISTOGRAMS.items()}
    config = next(iter(families.get("vllm:cache_config_info", ())), None)
    values: dict[str, Any] = {**gauges, **counters, **histograms}
    return MetricsSnapshot(
        **values,
        cache_config=dict(config.labels) if config else {},
        process_started=totals.get("process_start_time_seconds"),
        samples=totals,
    )


def _histogram(samples: Iterable[Sample]) -> Histogram | None:
    count = total = 0.0
    buckets: dict[float, float] = {}
    for sample in samples:
        if sample.name.endswith("_count"):
            count += sample.value
        elif sample.name.endswith("_sum"):
            total += sample.value
        elif sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return Histogram(count, total, tuple(sorted(buckets.items()))) if buckets else None


def _difference(name: str, after: float | None, before: float | None) -> float | None:
    if after is None:
        return None
    if after < (before or 0.0):
        raise EngineRestarted(_RESTARTED.format(name=name, before=before, after=after))
    # A counter the engine had not exported yet starts at 0 when it first counts: that is Prometheus's definition.
    return after - (before or 0.0)


def _cumulative(sample: str) -> bool:
    return sample.endswith(("_total", "_count", "_sum"))


_FIELDS = {f.name for f in fields(MetricsSnapshot)}
assert {*_GAUGES, *_COUNTERS, *_HISTOGRAMS} <= _FIELDS
