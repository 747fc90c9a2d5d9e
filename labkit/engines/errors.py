"""Errors of starting and attaching to engines; errors of answering are in `labkit.request.errors`."""

from __future__ import annotations

from labkit.request import EngineError, LabError


class EngineArgumentError(LabError, ValueError):
    """An engine argument that vLLM does not know or would not take."""


class EngineStartError(EngineError):
    """The engine did not come up; `log_tail` holds its own last lines."""

    def __init__(self, message: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail


class EngineRestarted(EngineError):
    """Counters of two metric snapshots cannot be subtracted: the engine was restarted between them."""


class MetricMissing(LabError, KeyError):
    """The engine's metrics do not hold what was asked for."""

    def __str__(self) -> str:
        return str(self.args[0])


class RecordingError(LabError):
    """A recording that cannot be trusted, or does not hold what was asked of it."""
