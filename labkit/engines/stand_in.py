"""A stand-in for an engine that is not there: code that names an engine still runs, and whoever asks it is told why."""

from __future__ import annotations

from labkit.engines.engine import Engine
from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.models import tokenizer_folder
from labkit.engines.provenance import Provenance
from labkit.request import EngineError, Handler


def absent(model: str, provenance: Provenance, why: str) -> Engine:
    """An engine that refuses every request with `EngineError`, which says `why`.

    It has the tokenizer of `model` where that is on this machine. `provenance` is what stands in for the engine's own, as
    that of a recording.
    """
    return Engine(
        model=model,
        context_window=None,
        provenance=provenance,
        tokenizer_path=tokenizer_folder(model),
        connection=_Nobody(why),
    )


class _Nobody:
    """A connection to nothing."""

    def __init__(self, why: str) -> None:
        self._why = why
        self.url = ""
        self.api_key = ""
        self.log = None

    async def handler(self) -> Handler:
        raise EngineError(f"there is no engine here to ask: {self._why}")

    async def metrics(self) -> MetricsSnapshot:
        raise EngineError(f"there is no engine here to ask: {self._why}")

    async def aclose(self) -> None:
        """Nothing is open."""
