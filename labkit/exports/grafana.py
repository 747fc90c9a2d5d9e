"""A Grafana dashboard over the metrics of this room, as the JSON that Grafana imports.

Grafana itself is not needed to make or to check it: `check_dashboard` knows the fields that an import needs, and
`panel_queries` lists the PromQL, so that a test can run it on a Prometheus.

Money of a day is a difference of the ledger's own sums, and not PromQL's `increase`, which guesses at the edges of the
window and leaves out what a new tenant, feature or model had spent before its first scrape. Where Prometheus has not watched
for a day, or another ledger took the place of the first, no such difference exists: the panel then says that it has no data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.exports import names
from labkit.exports.errors import ExportError

SCHEMA_VERSION = 39
"""Of Grafana 10 and 11; later versions convert it when they import it."""
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_RANGE = "[$__rate_interval]"
_DAY = "1d"


def _of_a_day(counter: str) -> str:
    """PromQL for how much a counter of the ledger grew in the last day, over all labels."""
    now, before = (f"(sum({counter}{at}) or 0 * sum({names.PROM_KEPT}{at}))" for at in ("", f" offset {_DAY}"))
    return f"({now} - {before}) unless sum(resets({names.PROM_KEPT}[{_DAY}])) > 0"


# title, kind of panel, unit, (query, legend)…
_PANELS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Dollars in the last day", "stat", "currencyUSD", ((_of_a_day(names.PROM_COST), "dollars"),)),
    (
        "Attempts without a price in the last day",
        "stat",
        "short",
        ((_of_a_day(names.PROM_UNPRICED), "unpriced"),),
    ),
    ("Dollars an hour by tenant", "timeseries", "currencyUSD", (
        (f"3600 * sum by (tenant) (rate({names.PROM_COST}{_RANGE}))", "{{tenant}}"),)),
    ("Dollars an hour by feature", "timeseries", "currencyUSD", (
        (f"3600 * sum by (feature) (rate({names.PROM_COST}{_RANGE}))", "{{feature}}"),)),
    ("Dollars an hour by model", "timeseries", "currencyUSD", (
        (f"3600 * sum by (model) (rate({names.PROM_COST}{_RANGE}))", "{{model}}"),)),
    ("Tokens a second by kind", "timeseries", "short", (
        (f"sum by ({names.KIND_LABEL}) (rate({names.PROM_TOKENS}{_RANGE}))", "{{kind}}"),)),
    ("Share of input that a prefix cache had", "timeseries", "percentunit", (
        (f'sum(rate({names.PROM_TOKENS}{{kind="cached_input"}}{_RANGE})) / '
         f'sum(rate({names.PROM_TOKENS}{{kind=~"fresh_input|cached_input|cache_write"}}{_RANGE}))', "cached"),)),
    ("Attempts for each request", "timeseries", "short", (
        (f"sum(rate({names.PROM_ATTEMPTS}{_RANGE})) / sum(rate({names.PROM_REQUESTS}{_RANGE}))", "attempts"),)),
    ("Attempts a second by outcome", "timeseries", "short", (
        (f"sum by (outcome) (rate({names.PROM_ATTEMPTS}{_RANGE}))", "{{outcome}}"),)),
    ("Seconds of an attempt", "timeseries", "s", tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({names.PROM_SECONDS}_bucket{_RANGE})))", told)
        for share, told in ((0.5, "half"), (0.95, "95 %")))),
    ("Seconds to the first token", "timeseries", "s", tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({names.PROM_TTFT}_bucket{_RANGE})))", told)
        for share, told in ((0.5, "half"), (0.95, "95 %")))),
)  # fmt: skip

DASHBOARD_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"],
    "properties": {
        "id": {"type": "null"},
        "uid": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,40}$"},
        "title": {"type": "string", "minLength": 1},
        "schemaVersion": {"type": "integer", "minimum": 30},
        "time": {"type": "object", "required": ["from", "to"]},
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {"list": {"type": "array", "items": {"type": "object", "required": ["name", "type"]}}},
        },
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig"],
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["stat", "timeseries"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["x", "y", "w", "h"],
                        "properties": {
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                            "y": {"type": "integer", "minimum": 0},
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                            "h": {"type": "integer", "minimum": 1},
                        },
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["refId", "expr", "datasource"],
                            "properties": {"refId": {"type": "string", "pattern": "^[A-Z]$"}, "expr": {"type": "string"}},
                        },
                    },
                },
            },
        },
    },
}
"""The fields that Grafana needs to import a dashboard and draw its panels."""


def grafana_dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it; the Prometheus to ask is chosen there."""
    return {
        "id": None,
        "uid": "labkit-cost",
        "title": "What inference costs",
        "tags": ["labkit"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(place, *each) for place, each in enumerate(_PANELS)],
    }


def check_dashboard(dashboard: Mapping[str, Any]) -> None:
    """Raise `ExportError` for the first field that Grafana would miss or not take."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(DASHBOARD_SCHEMA).iter_errors(dashboard):
        raise ExportError(f"Grafana would not import this dashboard: {error.json_path} {error.message[:200]}")
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) < len(ids):
        raise ExportError("Grafana would not import this dashboard: two panels have the same id")


def panel_queries(dashboard: Mapping[str, Any], *, rate_interval: str = "5m") -> tuple[str, ...]:
    """The PromQL of all panels, with `rate_interval` where Grafana puts its own."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return tuple(query.replace("$__rate_interval", rate_interval) for query in found)


def write_dashboard(path: str | os.PathLike[str]) -> None:
    """Write the dashboard as a JSON file. Raises `ExportError` where that cannot be done."""
    try:
        Path(path).write_text(json.dumps(grafana_dashboard(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}; choose a writable folder") from error


def _panel(place: int, title: str, kind: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "id": place + 1,
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"x": place % 2 * 12, "y": place // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for i, (query, legend) in enumerate(queries)
        ],
    }
