"""What a `pip install` may leave out: packages that only a part of labkit needs, by the name of the extra that brings them.

The core needs few packages. The rest are imported where they are used, so that a service that takes the ledger or the router
installs neither JupyterLab nor torch:

    with extra("analysis"):
        import pandas as pd
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from labkit.request import LabError

__all__ = ["Extra", "MissingExtra", "extra"]

Extra = Literal["analysis", "models", "semantic", "telemetry", "workbook"]
"""Tables and statistics; tokenizers and models; embeddings and their index; OpenTelemetry; the notebooks (and all)."""


class MissingExtra(LabError, ImportError):
    """A package that belongs to an extra is not installed. The message has the command that installs it."""


@contextmanager
def extra(name: Extra) -> Iterator[None]:
    """Surround imports that the extra `name` provides. Raises `MissingExtra` where one of the packages is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "labkit"):
            raise
        raise MissingExtra(f"{package} is not installed. Fix: pip install 'inference-cost-lab[{name}]'") from error
