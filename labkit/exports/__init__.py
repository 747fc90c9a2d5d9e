"""Exports: the ledger in the formats that other tools read, all of which add up to the same totals.

`focus_rows` makes a FOCUS 1.3 dataset, `send_otlp` sends OpenTelemetry spans and metrics, `LedgerMetrics` serves Prometheus,
and `grafana_dashboard` draws what Prometheus has. `reconcile` says where an export differs from the ledger. An attempt
without a price is counted in each of them, and is never free. Names that others chose are in one module, `names`.
"""

from labkit.exports.errors import ExportError, TooManySeries
from labkit.exports.focus import (
    focus_rows,
    read_focus_csv,
    totals_of_focus,
    totals_of_parquet,
    write_focus_csv,
    write_focus_parquet,
)
from labkit.exports.focusrules import MANDATORY, Violation, check_focus
from labkit.exports.grafana import check_dashboard, grafana_dashboard, panel_queries, write_dashboard
from labkit.exports.otel import attributes_of, metrics_of, spans_of, totals_of_otlp_metrics, totals_of_otlp_spans
from labkit.exports.otlp import OtlpSent, send_otlp
from labkit.exports.prometheus import LedgerMetrics, exposition, increase, totals_of_exposition
from labkit.exports.totals import Mismatch, Totals, reconcile, totals_of

__all__ = [
    "MANDATORY",
    "ExportError",
    "LedgerMetrics",
    "Mismatch",
    "OtlpSent",
    "TooManySeries",
    "Totals",
    "Violation",
    "attributes_of",
    "check_dashboard",
    "check_focus",
    "exposition",
    "focus_rows",
    "grafana_dashboard",
    "increase",
    "metrics_of",
    "panel_queries",
    "read_focus_csv",
    "reconcile",
    "send_otlp",
    "spans_of",
    "totals_of",
    "totals_of_exposition",
    "totals_of_focus",
    "totals_of_otlp_metrics",
    "totals_of_otlp_spans",
    "totals_of_parquet",
    "write_dashboard",
    "write_focus_csv",
    "write_focus_parquet",
]
