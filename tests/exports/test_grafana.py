"""The dashboard file: made by the package, complete for Grafana, and about metrics that exist."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest

from labkit.exports import (
    ExportError,
    LedgerMetrics,
    check_dashboard,
    exposition,
    grafana_dashboard,
    panel_queries,
    write_dashboard,
)
from labkit.ledger import Row
from tests.exports.ledgers import ledger_of
from tests.extras.declared import REPO


def test_the_file_is_what_the_package_makes(tmp_path):
    write_dashboard(tmp_path / "made.json")
    assert (tmp_path / "made.json").read_text() == (REPO / "data" / "dashboards" / "labkit.json").read_text()


def test_it_has_what_grafana_needs():
    dashboard = json.loads(json.dumps(grafana_dashboard()))
    check_dashboard(dashboard)
    spots = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(spots)) == len(spots) == 11


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.pop("schemaVersion"), "schemaVersion"),
        (lambda d: d["panels"][0].pop("gridPos"), "gridPos"),
        (lambda d: d["panels"][0]["gridPos"].update(x=24), r"gridPos\.x"),
        (lambda d: d["panels"][1].update(id=1), "the same id"),
        (lambda d: d["panels"][2]["targets"].clear(), "targets"),
    ],
)
def test_what_grafana_would_not_take(change, told):
    dashboard = grafana_dashboard()
    change(dashboard)
    with pytest.raises(ExportError, match=told):
        check_dashboard(dashboard)


def test_every_query_asks_for_a_metric_that_is_exported():
    row = Row(
        provider="lab", tenant="a", cost=Decimal(1), input_tokens=1, output_tokens=1, sent=0.0, first_token=1.0, done=2.0
    )
    exported = set(re.findall(r"^(labkit_\w+)", exposition(LedgerMetrics(ledger_of([row, Row(provider="lab")]))), re.M))
    queries = panel_queries(grafana_dashboard())
    assert len(queries) == 13
    asked = {name for query in queries for name in re.findall(r"labkit_\w+", query)}
    assert asked <= exported
    assert not any("$" in query for query in queries)
    assert all(query.count("(") == query.count(")") for query in queries)
