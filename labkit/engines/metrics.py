"""The engine's own Prometheus metrics as typed snapshots, and what happened between two of them.

    before = await engine.metrics()
    ...
    run = await engine.metrics() - before
    run.generation_tokens, run.time_to_first_token.mean

A metric that the engine does not export is None, never 0: "not measured" and "none" are different findings. A metric whose
value is NaN or infinite is None too. Where several engines stand behind one address, their counters, running requests and KV
tokens are added up, and the KV cache usage is that of the fullest engine.

vLLM's counters count tokens, not requests; use differences over a run, never the averages that vLLM logs. The true prefix
hit rate is cached prompt tokens / prompt tokens (`cached_share`): `prefix_cache_queries` and `_hits` count a request again
each time it waits.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.engines.errors import EngineRestarted, MetricMissing
from labkit.engines.histogram import Histogram, merged
from labkit.request import EngineError

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

# A sample's name and its labels, in alphabetical order.
Series = tuple[str, tuple[tuple[str, str], ...]]


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

    Counters are tokens unless named otherwise, since the engine's start (or between the snapshots). Gauges are of the moment
    (of the later one in a difference). Latencies are histograms in seconds, measured by the server: its time to first token
    starts at its own front end, not at the client's send. `kv_cache_usage` is a fraction, 0 to 1. `kv_caches` are the labels
    with which each engine describes its KV cache (num_gpu_blocks, block_size …). `process_started` is in seconds since 1970.
    `samples` are all metrics but histogram buckets by name, summed over labels; `series` are the counters by name and labels
    (empty in a difference). A difference raises `EngineRestarted` where an engine restarted between the snapshots.
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
    kv_caches: tuple[Mapping[str, str], ...]
    process_started: float | None
    samples: Mapping[str, float]
    series: Mapping[Series, float] = field(default_factory=dict, repr=False)

    @cached_property
    def cached_share(self) -> float | None:
        """Cached prompt tokens per prompt token; None when no prompt was counted."""
        if self.cached_prompt_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_prompt_tokens / self.prompt_tokens

    @cached_property
    def cache_config(self) -> Mapping[str, str]:
        """The labels with which the engine describes its KV cache; of several engines, the labels that all share."""
        first, *others = self.kv_caches or ({},)
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    @cached_property
    def kv_cache_tokens(self) -> int | None:
        """How many tokens the KV caches hold together; None unless every engine says so.

        vLLM exports it as kv_cache_size_tokens. Without that it is blocks × block size, except in two cases, where it is
        None: layers have caches of several kinds (mamba_block_size is set), or several engines report the same number of
        blocks, because vLLM reports the sum of their blocks for each of them.
        """
        silent = [cache for cache in self.kv_caches if _whole(cache.get("kv_cache_size_tokens")) is None]
        if len({cache.get("num_gpu_blocks") for cache in silent}) < len(silent):
            return None
        said = [_tokens(cache) for cache in self.kv_caches]
        tokens = [count for count in said if count is not None]
        return sum(tokens) if tokens and len(tokens) == len(said) else None

    def value(self, sample: str) -> float:
        """Any sample by its exposed name ("vllm:generation_tokens_total"), summed over labels.

        Raises `MetricMissing`, with the closest name, where the engine does not export it.
        """
        if sample in self.samples:
            return self.samples[sample]
        close = difflib.get_close_matches(sample, self.samples, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise MetricMissing(f"the engine exports no metric {sample!r}{hint}")

    def __sub__(self, before: MetricsSnapshot) -> MetricsSnapshot:
        if None not in (started := {self.process_started, before.process_started}) and len(started) > 1:
            raise EngineRestarted("the two snapshots are of different engine processes; take both snapshots of one run")
        counters: dict[str, Any] = {name: self._counted_since(before, name) for name in _COUNTERS}
        _check_series(self.series, before.series)
        histograms: dict[str, Any] = {}
        for name in _HISTOGRAMS:
            after, earlier = getattr(self, name), getattr(before, name)
            histograms[name] = None if after is None else after if earlier is None else after - earlier
        samples = {n: v - before.samples.get(n, 0.0) if _cumulative(n) else v for n, v in self.samples.items()}
        return replace(self, **counters, **histograms, samples=samples, series={})

    def _counted_since(self, before: MetricsSnapshot, name: str) -> float | None:
        after, earlier = getattr(self, name), getattr(before, name)
        if after is None or (earlier is None and f"{_COUNTERS[name]}_total" in before.samples):
            return None
        # A counter the engine had not exported yet starts at 0 when it first counts: that is Prometheus's definition.
        if after < (earlier or 0.0):
            raise EngineRestarted(_RESTARTED.format(name=name, before=earlier, after=after))
        return float(after - (earlier or 0.0))


def counters_of(run: MetricsSnapshot) -> dict[str, float]:
    """The counters that the engine exports, of a run (the difference of two snapshots)."""
    return {name: value for name in _COUNTERS if (value := getattr(run, name)) is not None}


def counted(counters: Mapping[str, float]) -> MetricsSnapshot:
    """A snapshot that knows these counters and nothing else. Raises `MetricMissing` for a name that is no counter."""
    if unknown := sorted(counters.keys() - _COUNTERS.keys()):
        raise MetricMissing(f"{', '.join(unknown)} are no counters; those that are: {', '.join(_COUNTERS)}")
    nothing: dict[str, Any] = dict.fromkeys((*_GAUGES, *_HISTOGRAMS))
    known: dict[str, Any] = {name: counters.get(name) for name in _COUNTERS}
    return MetricsSnapshot(**nothing, **known, kv_caches=(), process_started=None, samples={})


def parse_metrics(text: str) -> MetricsSnapshot:
    """A snapshot from the text of `/metrics`.

    Raises `MetricMissing` when the text holds none of vLLM's metrics, `EngineError` when it is not in Prometheus's format.
    """
    found = _read(text)
    if not any(name.startswith("vllm:") for name in found):
        raise MetricMissing("this endpoint exports no vLLM metrics; they come with a live vLLM engine only")
    totals = {
        name: sum((sample.value for sample in samples), 0.0)
        for name, samples in found.items()
        if not name.endswith("_bucket")
    }
    gauges = {name: _finite(totals.get(metric)) for name, metric in _GAUGES.items()}
    usages = (sample.value for sample in found.get(_GAUGES["kv_cache_usage"], ()))
    gauges["kv_cache_usage"] = max(filter(math.isfinite, usages), default=None)
    counters = {name: _finite(totals.get(f"{metric}_total")) for name, metric in _COUNTERS.items()}
    histograms = {name: _histogram(found, metric) for name, metric in _HISTOGRAMS.items()}
    values: dict[str, Any] = {**gauges, **counters, **histograms}
    return MetricsSnapshot(
        **values,
        kv_caches=tuple(dict(sample.labels) for sample in found.get("vllm:cache_config_info", ())),
        process_started=_finite(totals.get("process_start_time_seconds")),
        samples=totals,
        series={
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in _COUNTERS.values()
            for sample in found.get(f"{metric}_total", ())
        },
    )


def _read(text: str) -> dict[str, list[Sample]]:
    """The samples by their own names, not by family: a proxy that strips comments leaves no families."""
    from prometheus_client.parser import text_string_to_metric_families  # costs more than all of this module

    found: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise EngineError(f"the engine's metrics are not in Prometheus's text format: {str(error)[:200]}") from error
    return found


def _histogram(found: Mapping[str, list[Sample]], metric: str) -> Histogram | None:
    series: dict[frozenset[tuple[str, str]], dict[float, float]] = {}
    for sample in found.get(f"{metric}_bucket", ()):
        labels = {**sample.labels}
        bound = _bound(metric, labels.pop("le", ""))
        series.setdefault(frozenset(labels.items()), {})[bound] = sample.value
    count, total = (sum((sample.value for sample in found.get(f"{metric}_{part}", ())), 0.0) for part in ("count", "sum"))
    return merged(list(series.values()), count, total)


def _bound(metric: str, text: str) -> float:
    try:
        if not math.isnan(bound := float(text)):
            return bound
    except ValueError:
        pass
    raise EngineError(f"a bucket of {metric} has the bound le={text!r}; it must be a number")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _whole(text: str | None) -> int | None:
    """A label's number; vLLM writes "None" for what it does not know."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None


def _tokens(cache: Mapping[str, str]) -> int | None:
    if (said := _whole(cache.get("kv_cache_size_tokens"))) is not None:
        return said
    blocks, size = _whole(cache.get("num_gpu_blocks")), _whole(cache.get("block_size"))
    several_kinds = _whole(cache.get("mamba_block_size")) is not None
    return None if blocks is None or size is None or several_kinds else blocks * size


def _check_series(after: Mapping[Series, float], before: Mapping[Series, float]) -> None:
    """Raise `EngineRestarted` where one of several engines restarted, even if the sum over all of them still grew."""
    exported = {name for name, _ in after}
    for (name, labels), value in before.items():
        now = after.get((name, labels))
        if math.isfinite(value) and name in exported and (now is None or now < value):
            which = ", ".join(f"{label}={text}" for label, text in labels)
            fate = "is gone" if now is None else f"went from {value:g} back to {now:g}"
            raise EngineRestarted(
                f"{name} of {which or 'the engine'} {fate}: an engine restarted; take both snapshots of one run"
            )


def _cumulative(sample: str) -> bool:
    return sample.endswith(("_total", "_count", "_sum"))


_FIELDS = {f.name for f in fields(MetricsSnapshot)}
assert {*_GAUGES, *_COUNTERS, *_HISTOGRAMS} <= _FIELDS
