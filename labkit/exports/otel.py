"""The ledger as OpenTelemetry spans and metrics, made by the official SDK; `labkit.exports.otlp` sends them.

One attempt is one span with the ledger's attributes, of the kind "client". Attempts at one request (same tenant and
idempotency key) share a trace. Ids are made from the ledger's, so that sending again does not make new spans. A cost is a
text in a span, since OpenTelemetry has no decimal numbers; in metrics it is a binary float, exact to far less than a cent.

A thinned-out ledger would not add up. So the environment cannot switch off or sample what is sent, and the SDK's limit of
2,000 combinations of attributes, past which it puts all others into one without attributes, is lifted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from labkit.exports import names
from labkit.exports.errors import ExportError
from labkit.exports.totals import Totals, exact_sum, kinds_of
from labkit.extras import extra
from labkit.ledger import COLUMNS, Row
from labkit.request import TOKEN_KINDS

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

_NANO = 1_000_000_000
_SERVICE = {"service.name": "labkit"}


def spans_of(rows: Iterable[Row], *, undated: datetime | None = None) -> list[ReadableSpan]:
    """One ended span for each attempt. `undated` is the start of those whose time is not known (default: 1970).

    Raises `ExportError` for an `undated` without a time zone. Needs the extra "telemetry".
    """
    with extra("telemetry"):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    if undated is not None and undated.tzinfo is None:
        raise ExportError("undated has no time zone; pass a datetime with one, such as tzinfo=UTC")
    resource = Resource(_SERVICE)
    scope = InstrumentationScope("labkit", schema_url=names.SEMCONV_URL)
    found: list[ReadableSpan] = []
    for row in rows:
        began = row.started_unix
        if began is None:
            began = 0.0 if undated is None else undated.timestamp()
        took = 0.0 if row.sent is None or row.done is None else max(0.0, row.done - row.sent)
        start = round(began * _NANO)
        request = (row.tenant, row.idempotency_key) if row.idempotency_key else (row.attempt_id,)
        failed = row.outcome == "failed"
        found.append(
            ReadableSpan(
                name=f"{row.operation} {row.request_model}".rstrip(),
                context=SpanContext(
                    _id(16, "request", *request), _id(8, "attempt", row.attempt_id), False, TraceFlags(TraceFlags.SAMPLED)
                ),
                resource=resource,
                attributes=attributes_of(row),
                kind=SpanKind.CLIENT,
                status=Status(StatusCode.ERROR, row.error_type) if failed else Status(StatusCode.UNSET),
                start_time=start,
                end_time=start + round(took * _NANO),
                instrumentation_scope=scope,
            )
        )
    return found


def attributes_of(row: Row) -> dict[str, Any]:
    """The attributes of a span, by the ledger's names; what is not known is left out. The cost is its decimal text."""
    found: dict[str, Any] = {}
    for column in COLUMNS:
        value = getattr(row, column.field)
        if value is not None:
            found[column.name] = format(value, "f") if isinstance(value, Decimal) else value
    return found


def metrics_of(rows: Sequence[Row]) -> MetricsData:
    """The metrics of attempts, cumulative: tokens and durations as the conventions name them, and ours for the rest.

    `gen_ai.client.token.usage` counts input with the cached part and output with reasoning, as the conventions do; the kinds
    of `labkit.tokens` are disjoint. Needs the extra "telemetry".
    """
    with extra("telemetry"):
        from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource

    enough = len(TOKEN_KINDS) * len(rows) + 1
    reader = InMemoryMetricReader(cardinality_limits={Counter: enough, Histogram: enough})
    provider = MeterProvider(
        [reader], resource=Resource(_SERVICE), exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
    )
    meter = provider.get_meter("labkit", schema_url=names.SEMCONV_URL)
    usage = meter.create_histogram(
        names.TOKEN_USAGE, "{token}", "Number of input and output tokens used.",
        explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS,
    )  # fmt: skip
    duration = meter.create_histogram(
        names.OPERATION_DURATION, "s", "GenAI operation duration.", explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS
    )
    attempts = meter.create_counter(names.ATTEMPTS, "{attempt}", "Attempts, however they ended.")
    unpriced = meter.create_counter(names.UNPRICED, "{attempt}", "Attempts whose cost nobody knows.")
    tokens = meter.create_counter(names.TOKENS, "{token}", "Tokens by kind; the kinds are disjoint.")
    cost = meter.create_counter(names.COST, "1", "Cost in the currency of the attribute.")
    money: dict[tuple[tuple[str, Any], ...], Decimal] = {}
    for row in rows:
        every = {
            name: value for name, value in attributes_of(row).items()
            if name in ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type",
                        "labkit.tenant", "labkit.feature", "labkit.outcome")
        }  # fmt: skip
        attempts.add(1, every)
        for kind, count in kinds_of(row).items():
            tokens.add(count, {**every, names.TOKEN_KIND: kind})
        if row.input_tokens is not None:
            usage.record(row.input_tokens, {**every, names.TOKEN_TYPE: "input"})
        if row.output_tokens is not None:
            usage.record(row.output_tokens, {**every, names.TOKEN_TYPE: "output"})
        if row.sent is not None and row.done is not None and row.done >= row.sent:
            duration.record(row.done - row.sent, every)
        if row.cost is None:
            unpriced.add(1, every)
        else:
            key = (*every.items(), (names.CURRENCY, row.currency))
            money[key] = exact_sum(money.get(key, Decimal(0)), row.cost)
    for key, amount in money.items():  # added up before it becomes a float
        cost.add(float(amount), dict(key))
    data = reader.get_metrics_data()
    provider.shutdown()
    if data is None:
        raise ExportError("OpenTelemetry gave no metrics; unset OTEL_SDK_DISABLED, or send only where there are attempts")
    return data


def totals_of_otlp_metrics(requests: Iterable[Any]) -> Totals:
    """The totals that a receiver reads from `ExportMetricsServiceRequest` messages of one sending."""
    counts = {names.ATTEMPTS: 0, names.UNPRICED: 0}
    tokens = dict.fromkeys(TOKEN_KINDS, 0)
    money: dict[str, list[float]] = {}
    for metric in (m for r in requests for one in r.resource_metrics for s in one.scope_metrics for m in s.metrics):
        for point in metric.sum.data_points:
            said = {pair.key: pair.value.string_value for pair in point.attributes}
            if metric.name in counts:
                counts[metric.name] += int(point.as_int)
            elif metric.name == names.TOKENS:
                tokens[said[names.TOKEN_KIND]] += int(point.as_int)
            elif metric.name == names.COST:
                money.setdefault(said[names.CURRENCY], []).append(point.as_double)
    cost = {currency: Decimal(str(math.fsum(parts))) for currency, parts in money.items()}
    return Totals(counts[names.ATTEMPTS], counts[names.UNPRICED], tokens, cost)


def totals_of_otlp_spans(requests: Iterable[Any]) -> Totals:
    """The totals that a receiver reads from `ExportTraceServiceRequest` messages; exact. A span sent twice counts once."""
    unpriced = 0
    tokens = dict.fromkeys(TOKEN_KINDS, 0)
    cost: dict[str, Decimal] = {}
    spans = {
        (span.trace_id, span.span_id): span
        for request in requests for one in request.resource_spans for scope in one.scope_spans for span in scope.spans
    }  # fmt: skip
    numbers = {c.name: c.field for c in COLUMNS if c.name.startswith("gen_ai.usage.")}
    for span in spans.values():
        said = {pair.key: pair.value for pair in span.attributes}
        counts: dict[str, Any] = {field: said[name].int_value for name, field in numbers.items() if name in said}
        for kind, count in kinds_of(Row(provider="any", **counts)).items():
            tokens[kind] += count
        if names.COST not in said:
            unpriced += 1
        else:
            currency = said[names.CURRENCY].string_value
            cost[currency] = exact_sum(cost.get(currency, Decimal(0)), Decimal(said[names.COST].string_value))
    return Totals(len(spans), unpriced, tokens, cost)


def _id(size: int, *parts: str) -> int:
    """An id of `size` bytes from texts, never 0, which OpenTelemetry takes for none."""
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:size], "big") or 1
