"""What an OTLP receiver gets: every attempt, with the ledger's own numbers."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from labkit.exports import (
    ExportError,
    OtlpSent,
    attributes_of,
    names,
    reconcile,
    send_otlp,
    spans_of,
    totals_of_otlp_metrics,
    totals_of_otlp_spans,
)
from labkit.ledger import Row
from labkit.request import InvalidValue
from tests.exports.ledgers import STARTED, ledger_of, receiver

RETRIED = [
    Row(provider="lab", outcome="failed", error_type="503", request_model="small", idempotency_key="k"),
    Row(
        provider="lab", request_model="small", idempotency_key="k", attempt=2, input_tokens=1000, cached_tokens=600,
        output_tokens=50, reasoning_tokens=20, cost=Decimal("0.000000000000000001"), finish_reasons=("stop",),
        usage_source="reported", sent=3.0, done=4.5, started_unix=STARTED,
    ),
]  # fmt: skip


def said(attributes):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def test_spans_hold_the_ledgers_numbers_by_the_conventions_names():
    with receiver() as (address, got, _):
        assert send_otlp(ledger_of(RETRIED), address) == OtlpSent(2, 2)
    (message,) = got["/v1/traces"]
    (scope,) = message.resource_spans[0].scope_spans
    assert scope.schema_url == names.SEMCONV_URL
    failed, done = scope.spans
    assert done.name == "chat small"
    assert said(done.attributes).items() >= {
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.output_tokens": 50, "gen_ai.usage.reasoning.output_tokens": 20,
        "labkit.cost": "0.000000000000000001", "labkit.currency": "USD", "labkit.attempt": 2,
    }.items()  # fmt: skip
    assert "labkit.cost" not in said(failed.attributes)  # not known is left out, not 0
    assert (failed.status.code, failed.status.message) == (2, "503")
    assert done.start_time_unix_nano == round(STARTED * 1e9)
    assert done.end_time_unix_nano - done.start_time_unix_nano == 1_500_000_000
    assert failed.trace_id == done.trace_id
    assert failed.span_id != done.span_id


def test_sending_again_makes_no_new_spans_and_the_environment_drops_none(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_on")
    ledger = ledger_of(RETRIED)
    with receiver() as (address, got, headers):
        for _ in range(2):
            send_otlp(ledger, address + "/", headers={"x-key": "secret"})
    spans = [span for message in got["/v1/traces"] for span in message.resource_spans[0].scope_spans[0].spans]
    assert len(spans) == 4
    assert len({span.span_id for span in spans}) == 2
    assert {sent.get("x-key", sent.get("X-Key")) for sent in headers} == {"secret"}


def test_metrics_count_input_with_its_cached_part_and_kinds_without():
    with receiver() as (address, got, _):
        send_otlp(ledger_of(RETRIED), address)
    (message,) = got["/v1/metrics"]
    found = {metric.name: metric for metric in message.resource_metrics[0].scope_metrics[0].metrics}
    usage = {said(point.attributes)[names.TOKEN_TYPE]: point for point in found[names.TOKEN_USAGE].histogram.data_points}
    assert {kind: (point.count, point.sum) for kind, point in usage.items()} == {"input": (1, 1000), "output": (1, 50)}
    assert list(usage["input"].explicit_bounds) == list(names.TOKEN_BOUNDS)
    (duration,) = found[names.OPERATION_DURATION].histogram.data_points
    assert (found[names.OPERATION_DURATION].unit, duration.sum) == ("s", 1.5)
    tokens: dict[str, int] = {}
    for point in found[names.TOKENS].sum.data_points:
        kind = said(point.attributes)[names.TOKEN_KIND]
        tokens[kind] = tokens.get(kind, 0) + point.as_int
    assert tokens == {"fresh_input": 400, "cached_input": 600, "cache_write": 0, "visible_output": 30, "reasoning": 20}
    assert [point.as_int for point in found[names.UNPRICED].sum.data_points] == [1]


def test_many_attempts_go_in_batches():
    with receiver() as (address, got, _):
        assert send_otlp(ledger_of([Row(provider="lab") for _ in range(700)]), address).spans == 700
    sizes = [len(message.resource_spans[0].scope_spans[0].spans) for message in got["/v1/traces"]]
    assert sizes == [512, 188]


def test_more_tenants_than_the_sdk_has_places_for_are_counted_one_by_one():
    """The SDK puts what is past 2,000 combinations of attributes into one without a tenant or a kind of token."""
    rows = [
        Row(provider="lab", tenant=f"t{n}", input_tokens=7, output_tokens=3, cost=Decimal("0.1"), sent=0.0, done=1.0)
        for n in range(2100)
    ]
    ledger = ledger_of(rows)
    with receiver() as (address, got, _):
        assert send_otlp(ledger, address) == OtlpSent(2100, 2100)
    assert len(got["/v1/metrics"]) > 1
    said_there = {"metrics": totals_of_otlp_metrics(got["/v1/metrics"]), "spans": totals_of_otlp_spans(got["/v1/traces"])}
    assert reconcile(ledger, said_there) == []
    assert "overflow" not in str(got["/v1/metrics"])


REJECTED = ExportTraceServiceResponse(partial_success={"rejected_spans": 1, "error_message": "too old"}).SerializeToString()
LOST = ExportMetricsServiceResponse(partial_success={"rejected_data_points": 2}).SerializeToString()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 302}, r"did not take spans 1 to 2 of 2 \(it answered 302, which sends elsewhere"),
        ({"kind": "text/html", "answers": {"/v1/traces": b"<p>hello</p>"}}, "did not take spans.*a web page"),
        ({"answers": {"/v1/traces": b"\xff\xff\xff"}}, "did not take spans 1 to 2 of 2; check"),
        ({"answers": {"/v1/traces": REJECTED}}, r"did not take spans.*it rejected 1 of a message: too old"),
        ({"answers": {"/v1/metrics": LOST}}, r"took the spans but not all metrics \(it rejected 2 of a message"),
    ],
)
def test_an_answer_that_only_looks_like_a_success_is_none(answer, told):
    with receiver(**answer) as (address, _, _), pytest.raises(ExportError, match=told):
        send_otlp(ledger_of(RETRIED), address)


def test_a_receiver_that_is_not_there_is_told():
    with receiver() as (address, _, _):
        pass
    with pytest.raises(ExportError, match="did not take spans 1 to 2 of 2; check that it is up"):
        send_otlp(ledger_of(RETRIED), address, timeout=0.2)


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "", "ftp://collector", "http://", "http://c:99999", "http://c/?key=secret", None]
)
def test_an_endpoint_that_is_none(endpoint):
    with pytest.raises(InvalidValue, match="no address of an OTLP/HTTP receiver") as caught:
        send_otlp(ledger_of(RETRIED), endpoint)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "10"])
def test_a_timeout_that_is_none(timeout):
    with pytest.raises(InvalidValue, match="timeout is"):
        send_otlp(ledger_of(RETRIED), "http://127.0.0.1:9", timeout=timeout)


@pytest.mark.parametrize("headers", [{"x-key": "secret\n"}, {"x-key": " secret"}, {"x-key": "secret€"}, {"x key": "secret"}])
def test_a_key_that_cannot_be_sent_is_neither_told_nor_logged(headers, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(InvalidValue, match="header") as caught:
        send_otlp(ledger_of(RETRIED), "http://127.0.0.1:9", headers=headers)
    assert "secret" not in str(caught.value) + caplog.text


def test_a_password_in_the_address_is_sent_and_not_told(caplog):
    with caplog.at_level(logging.DEBUG), receiver(status=401) as (address, _, headers), pytest.raises(ExportError) as caught:
        send_otlp(ledger_of(RETRIED), address.replace("http://", "http://me:secret@"))
    assert "secret" not in str(caught.value) + caplog.text
    assert address in str(caught.value)
    assert headers[0]["Authorization"] == "Basic bWU6c2VjcmV0"


def test_a_refusal_is_told_without_the_key():
    with receiver(status=401) as (address, _, _), pytest.raises(ExportError) as caught:
        send_otlp(ledger_of(RETRIED), address, headers={"authorization": "Bearer secret"})
    assert "did not take spans 1 to 2 of 2" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_attempt_without_a_time_starts_where_it_is_told_to():
    rows = [Row(provider="lab")]
    assert [span.start_time for span in spans_of(rows)] == [0]
    (span,) = spans_of(rows, undated=datetime.fromtimestamp(STARTED, UTC))
    assert span.start_time == round(STARTED * 1e9)
    with pytest.raises(ExportError, match="no time zone"):
        spans_of(rows, undated=datetime(2026, 3, 1))


def test_an_empty_ledger_sends_nothing():
    with receiver() as (address, got, _):
        assert send_otlp(ledger_of([]), address) == OtlpSent(0, 0)
    assert got == {"/v1/traces": [], "/v1/metrics": []}


def test_attributes_have_the_ledgers_names():
    assert attributes_of(RETRIED[0])["error.type"] == "503"
    assert "gen_ai.usage.input_tokens" not in attributes_of(RETRIED[0])
