"""Sending the ledger over OTLP/HTTP by the official SDK, and believing no receiver that did not take all.

The SDK counts an answer with a status below 400 as a success. So a redirect to a log-in page, a web page, and a receiver
that says in its answer that it rejected a part would all pass for it. The answers are read here too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.exports.errors import ExportError
from labkit.exports.otel import metrics_of, spans_of
from labkit.extras import extra
from labkit.ledger import Ledger
from labkit.request import InvalidValue

if TYPE_CHECKING:
    import requests

_SPANS = 512
_POINTS = 5000
"""Spans, and points of metrics, in one message: some hundreds of kilobytes."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class OtlpSent:
    """What a receiver has accepted: the number of spans, and of attempts in the metrics."""

    spans: int
    attempts: int


def send_otlp(
    ledger: Ledger,
    endpoint: str,
    *,
    headers: Mapping[str, str] | None = None,
    undated: datetime | None = None,
    timeout: float = 10.0,
) -> OtlpSent:
    """Send every attempt to the OTLP/HTTP receiver at `endpoint` ("http://collector:4318"), as spans and as metrics.

    `headers` may hold a key, and the endpoint a password; neither appears in an error. `undated` is the start of spans whose
    time is not known (default: 1970). `timeout` is in seconds for each message. Raises `ExportError` when the receiver did
    not accept all; spans that it already has are sent again with the same ids by the next call. Raises `InvalidValue` for an
    endpoint, a header or a timeout that cannot be used. Needs the extra "telemetry".
    """
    with extra("telemetry"):
        import requests
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
        from opentelemetry.sdk.metrics.export import MetricExportResult
        from opentelemetry.sdk.trace.export import SpanExportResult

    base, shown = _endpoint(endpoint)
    given = _headers(headers or {})
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidValue(f"timeout is {timeout!r:.60}; give seconds, above 0")
    rows = ledger.rows()
    answers = _Answers(ExportTraceServiceResponse, "rejected_spans")
    spans = OTLPSpanExporter(
        endpoint=f"{base}/v1/traces", headers=given, timeout=timeout, session=answers.listen(requests.Session())
    )
    try:
        for start in range(0, len(rows), _SPANS):
            batch = spans_of(rows[start : start + _SPANS], undated=undated)
            if spans.export(batch) is not SpanExportResult.SUCCESS or answers.problem:
                raise ExportError(
                    f"the OTLP receiver at {shown} did not take spans {start + 1} to {start + len(batch)} of {len(rows)}"
                    f"{answers.problem}; check that it is up, takes OTLP over HTTP, and knows your key; the ledger still "
                    "has them"
                )
    finally:
        spans.shutdown()  # type: ignore[no-untyped-call]
    answers = _Answers(ExportMetricsServiceResponse, "rejected_data_points")
    metrics = OTLPMetricExporter(
        endpoint=f"{base}/v1/metrics", headers=given, timeout=timeout, session=answers.listen(requests.Session()),
        max_export_batch_size=_POINTS,
    )  # fmt: skip
    try:
        if rows and (metrics.export(metrics_of(rows)) is not MetricExportResult.SUCCESS or answers.problem):
            raise ExportError(
                f"the OTLP receiver at {shown} took the spans but not all metrics{answers.problem}; send again when it does"
            )
    finally:
        metrics.shutdown()
    return OtlpSent(len(rows), len(rows))


class _Answers:
    """Reads a receiver's answers; `problem` says what is wrong with one that the SDK takes for a success, or is empty."""

    def __init__(self, message: Any, rejected: str) -> None:
        self._message = message
        self._rejected = rejected
        self.problem = ""

    def listen(self, session: requests.Session) -> requests.Session:
        session.hooks["response"].append(self._read)
        return session

    def _read(self, response: requests.Response, *_: Any, **__: Any) -> None:
        kind = response.headers.get("content-type", "").lower()
        if 300 <= response.status_code < 400:
            self.problem = f" (it answered {response.status_code}, which sends elsewhere: give the address behind that)"
        elif response.status_code < 300 and kind.startswith("text/html"):
            self.problem = " (it answered with a web page: this is no OTLP receiver)"
        elif response.status_code < 300 and kind.startswith("application/x-protobuf"):
            # An answer that cannot be read raises here, which the SDK counts as a failure.
            part = self._message.FromString(response.content).partial_success
            if count := getattr(part, self._rejected):
                self.problem = f" (it rejected {count} of a message: {part.error_message[:200] or 'it does not say why'})"


def _endpoint(given: str) -> tuple[str, str]:
    """The endpoint without its last slash, and the same without a name and a password, for errors."""
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        port = "" if parts.port is None else f":{parts.port}"
    except (ValueError, AttributeError, TypeError):
        usable, port = None, ""
    if not usable:
        raise InvalidValue(
            "the endpoint is no address of an OTLP/HTTP receiver; give one with http:// or https:// in front and nothing "
            'behind its path, such as "http://collector:4318"'
        )
    return given.rstrip("/"), f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    """A copy of headers that can be sent. What is wrong with a value is told without the value, which may be a key."""
    for name, value in given.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidValue("the name of a header has characters that HTTP does not allow there; use letters and -")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
            raise InvalidValue(
                f"the value of the header {name!r} cannot be sent (it is not shown, as it may be a key); give text without "
                "line breaks or spaces at its ends"
            )
    return dict(given)
