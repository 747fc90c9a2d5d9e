"""Ledgers with attempts of every kind, and an OTLP receiver in this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from labkit.ledger import Ledger, Row

STARTED = 1_772_442_000.25  # 2 March 2026, 09:00 UTC
MESSAGES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


@st.composite
def attempts(draw, currencies=("USD", "EUR")):
    fresh, cached, written, visible, reasoning = (draw(st.integers(0, 100_000)) for _ in range(5))
    known = draw(st.booleans())
    sent = draw(st.none() | st.floats(0, 1000))
    took = draw(st.floats(0.001, 100))
    usage = {
        "input_tokens": fresh + cached + written, "output_tokens": visible + reasoning, "cached_tokens": cached,
        "cache_write_tokens": written, "reasoning_tokens": reasoning, "usage_source": "reported",
    }  # fmt: skip
    return Row(
        provider=draw(st.sampled_from(["lab", 'other, "provider"\n'])),
        outcome=draw(st.sampled_from(["completed", "failed", "cancelled"])),
        request_model=draw(st.sampled_from(["", "small", "large"])),
        tenant=draw(st.sampled_from(["", "north", 'süd\\"\n'])),
        feature=draw(st.sampled_from(["", "search"])),
        cost=draw(st.none() | st.decimals(0, 1000, places=9)),
        currency=draw(st.sampled_from(currencies)),
        idempotency_key=draw(st.sampled_from(["", "k1", "k2"])),
        attempt=draw(st.integers(1, 3)),
        shadow=draw(st.booleans()),
        sent=sent,
        first_token=None if sent is None else sent + took / 2,
        done=None if sent is None else sent + took,
        started_unix=STARTED + draw(st.integers(0, 10**7)),
        **(usage if known else {}),
    )


def ledger_of(rows):
    ledger = Ledger(":memory:")
    ledger.extend(rows)
    return ledger


@contextmanager
def receiver(status=200, kind="application/x-protobuf", answers=()):
    """An OTLP/HTTP receiver: its address, the messages it got by path, and the headers of each.

    It answers everything with `status`, and with the body that `answers` has for the path.
    """
    bodies = dict(answers)
    got = {path: [] for path in MESSAGES}
    headers = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got[self.path].append(MESSAGES[self.path].FromString(body))
            headers.append(dict(self.headers))
            content = bodies.get(self.path, b"")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Location", "/login")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got, headers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
