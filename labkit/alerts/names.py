"""The metrics that alerts are written on, by the names that the exporter gives them."""

from __future__ import annotations

from typing import Final

COST_METRIC: Final = "labkit_cost_usd_total"
"""A counter of dollars, with the labels tenant, feature, model and outcome."""
LIMIT_LABELS: Final = ("tenant", "feature")
"""Those of its labels that a limit can be for."""
