"""Debian's Prometheus scrapes the ledger, and its numbers are the ledger's; its promtool runs the dashboard's queries.

Debian's package `prometheus` has both. Its service is not used: a test starts the program on a free port and ends it.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from decimal import Decimal
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from labkit.exports import (
    LedgerMetrics,
    exposition,
    grafana_dashboard,
    increase,
    panel_queries,
    reconcile,
    totals_of,
    totals_of_exposition,
)
from labkit.ledger import Row
from tests.exports.ledgers import ledger_of

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="NO PROMETHEUS HERE: no number was compared with its own (Debian: apt-get install prometheus)",
)
SECONDS_TO_WAIT = 60
QUERIES = panel_queries(grafana_dashboard())
DOLLARS_OF_A_DAY, UNPRICED_OF_A_DAY = QUERIES[:2]


def attempts(number, **fields):
    """Rows of two tenants with every kind of token, by turns failed, unpriced, and paid in euros."""
    return [
        Row(
            provider="lab", request_model="small", tenant=("north", 'süd\\"\n')[n % 2], feature="search",
            outcome="failed" if n % 5 == 0 else "completed", cost=None if n % 7 == 0 else Decimal(n) / 1000,
            currency="EUR" if n % 11 == 0 else "USD", input_tokens=100 + 3 * n, cached_tokens=n, cache_write_tokens=n % 3,
            output_tokens=40 + n, reasoning_tokens=n % 4, usage_source="reported", sent=1.0, first_token=1.0 + n / 100,
            done=2.0 + n / 10, **fields,
        )
        for n in range(1, number + 1)
    ]  # fmt: skip


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Engine:
    """What an engine serves: its tokens, counted in memory from its start on."""

    tokens = 0

    def __call__(self, _, start_response):
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4")])
        name = "vllm:generation_tokens_total"
        return [f"# TYPE {name} counter\n{name} {self.tokens}\n".encode()]


@contextmanager
def served(app):
    """The address at which the app's metrics are served."""
    web = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


class Prometheus:
    """A Prometheus that scrapes `targets` every second."""

    def __init__(self, folder, **targets):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        jobs = [{"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in targets.items()]
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.log = folder / "log"
        command = [
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path, **query):
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode("utf-8")

    def ask(self, query):
        """The result of an instant query, by Prometheus's own evaluation."""
        said = json.loads(self.get("/api/v1/query", query=query))
        assert said["status"] == "success", said
        return said["data"]["result"]

    def values(self, query):
        return [float(each["value"][1]) for each in self.ask(query)]

    def until(self, query, value):
        """Wait until the query gives this one value; fail with Prometheus's log when it does not come."""
        end = time.monotonic() + SECONDS_TO_WAIT
        found = None
        while time.monotonic() < end and self.process.poll() is None:
            try:
                found = self.values(query)
                if found == [value]:
                    return
            except OSError as error:
                found = error
            time.sleep(0.2)
        pytest.fail(f"{query} is {found}, not {value}; Prometheus says:\n{self.log.read_text()[-3000:]}")


@contextmanager
def prometheus(folder, **targets):
    server = Prometheus(folder, **targets)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_real_prometheus_has_the_ledgers_numbers_and_a_restart_changes_no_dollar(tmp_path):
    ledger = ledger_of(attempts(60))
    registry, metrics, engine = CollectorRegistry(), LedgerMetrics(ledger), Engine()
    registry.register(metrics)
    app = make_wsgi_app(registry)
    with served(app) as exporter, served(engine) as target, prometheus(tmp_path, lab=exporter, engine=target) as server:
        server.until("labkit_ledger_attempts", 60)
        server.until("vllm:generation_tokens_total", 0)
        engine.tokens = 100
        server.until("vllm:generation_tokens_total", 100)
        compare(server, ledger)

        # Both restart: the engine, which counts from 0 again, and the exporter.
        registry.unregister(metrics)
        registry.register(LedgerMetrics(ledger))
        ledger.extend(attempts(23, idempotency_key="again"))
        engine.tokens = 40
        server.until("labkit_ledger_attempts", 83)
        server.until("vllm:generation_tokens_total", 40)
        engine.tokens = 70
        server.until("vllm:generation_tokens_total", 70)
        compare(server, ledger)
        assert set(server.values("resets(labkit_cost_usd_total[5m])")) == {0}
        assert server.values("resets(vllm:generation_tokens_total[5m])") == [1]

        # A difference of the engine's samples loses what was made before the restart; `increase` does not.
        (series,) = server.ask("vllm:generation_tokens_total[5m]")
        samples = [float(value) for _, value in series["values"]]
        assert samples[-1] - samples[0] == 70
        assert increase(samples) == 100 + 70

        answers = {query: server.ask(query) for query in QUERIES}
        nothing = [query for query in QUERIES if not answers[query]]
        assert nothing == [DOLLARS_OF_A_DAY, UNPRICED_OF_A_DAY]  # it has not watched for a day, and says so


def compare(server, ledger):
    """Prometheus's sums against the ledger's: tokens to the token, dollars to far less than a cent."""
    booked = totals_of(ledger.rows())
    kinds = {each["metric"]["kind"]: float(each["value"][1]) for each in server.ask("sum by (kind) (labkit_tokens_total)")}
    assert kinds == dict(booked.tokens)
    assert sum(kinds.values()) > 10_000
    assert server.values("sum(labkit_unpriced_attempts_total)") == [booked.unpriced]
    assert server.values("sum(labkit_cost_usd_total)") == [pytest.approx(float(booked.cost["USD"]), abs=1e-9)]
    federated = server.get("/federate", **{"match[]": '{__name__=~"labkit_.*",job="lab"}'})
    assert reconcile(ledger, {"Prometheus": totals_of_exposition(federated)}, currencies=["USD"]) == []


def promtool(*arguments, **options):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False, **options)


def test_promtool_finds_no_fault_with_the_metrics():
    done = promtool("check", "metrics", input=exposition(LedgerMetrics(ledger_of(attempts(20)))))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def evaluated(folder, series, expected):
    """What promtool says of {(query, hour): value, or None for no data} over the series {name: values by the hour}."""
    asked = [
        {
            "expr": query,
            "eval_time": f"{hour}h",
            "exp_samples": [{"labels": "{}", "value": value}] if value is not None else [],
        }
        for (query, hour), value in expected.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "1h", "input_series": inputs, "promql_expr_test": asked}]
    (folder / "tests.yml").write_text(json.dumps({"evaluation_interval": "1h", "tests": tests}))
    return promtool("test", "rules", "tests.yml", cwd=folder)


# By the hour, over three days: an old tenant spends 1 dollar an hour; a new one is first seen after 30 h, with 5 dollars.
TENANTS = {
    'labkit_cost_usd_total{tenant="old"}': "0+1x72",
    'labkit_cost_usd_total{tenant="new"}': "_x30 5+0x42",
    'labkit_unpriced_attempts_total{tenant="new"}': "_x30 2+0x42",
    "labkit_ledger_attempts": "0+10x72",
}


def test_the_dollars_of_a_day_are_the_ledgers_where_increase_loses_a_new_tenants_first(tmp_path):
    expected = {
        (DOLLARS_OF_A_DAY, 48): 24 + 5,
        ("sum(increase(labkit_cost_usd_total[1d]))", 48): 24,  # 5 dollars short
        (DOLLARS_OF_A_DAY, 60): 24,
        (DOLLARS_OF_A_DAY, 12): None,  # Prometheus has not watched for a day
        (UNPRICED_OF_A_DAY, 48): 2,
        (UNPRICED_OF_A_DAY, 26): 0,  # none so far, which is known
        (UNPRICED_OF_A_DAY, 60): 0,
    }
    done = evaluated(tmp_path, TENANTS, expected)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = evaluated(tmp_path, TENANTS, {(DOLLARS_OF_A_DAY, 48): 24})
    assert wrong.returncode == 1
    assert "got: {} 2.9E+01" in wrong.stdout + wrong.stderr


def test_a_ledger_in_the_place_of_another_gives_no_dollars_of_a_day_and_never_wrong_ones(tmp_path):
    """At 40 h a new ledger takes over, with counters that begin again."""
    series = {"labkit_cost_usd_total": "0+1x39 2+3x32", "labkit_ledger_attempts": "0+10x39 5+10x32"}
    done = evaluated(
        tmp_path, series, {(DOLLARS_OF_A_DAY, 39): 24, (DOLLARS_OF_A_DAY, 48): None, (DOLLARS_OF_A_DAY, 70): 72}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_engine_that_restarts_in_the_window_loses_no_tokens_by_either_rule(tmp_path):
    samples = [0, 100, 250, 30, 80]
    assert samples[-1] - samples[0] == 80  # what a plain difference tells
    assert increase(samples) == 250 + 80
    series = {"vllm:generation_tokens_total": " ".join(map(str, samples))}
    done = evaluated(tmp_path, series, {("sum(increase(vllm:generation_tokens_total[4h]))", 4): 330})
    assert done.returncode == 0, done.stdout + done.stderr
