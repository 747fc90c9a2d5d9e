"""Errors of exporting a ledger; the ledger itself is never touched by them."""

from __future__ import annotations

from labkit.request import LabError


class ExportError(LabError):
    """The ledger's attempts could not be handed on: to a file, a collector, or a scrape. The ledger still has them all."""


class TooManySeries(ExportError):
    """The values of the labels would make more time series than a metrics server should be given."""
