"""An engine that answered in the past: a recording, played again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.data import clone_path
from labkit.engines.engine import Engine
from labkit.engines.errors import RecordingError
from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.models import tokenizer_folder
from labkit.engines.replay import Recording
from labkit.engines.sources.live import Progress


@dataclass(frozen=True, slots=True)
class Replayed:
    """The recording at `path`, or the newest of the lab's that was made with `model`."""

    model: str
    path: Path | str | None = None

    async def connect(self, report: Progress) -> Engine:
        """Load the recording. Raises `RecordingError` where there is none, or where it cannot be trusted."""
        recording = Recording.load(self.path if self.path is not None else _newest(self.model))
        report(f"replaying: {recording.provenance.caption()}")
        return Engine(
            model=recording.provenance.model,
            context_window=recording.context_window,
            provenance=recording.provenance,
            tokenizer_path=tokenizer_folder(self.model),
            connection=ReplayedConnection(recording),
        )


class ReplayedConnection:
    """A recording as a connection, which keeps nothing open."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.url = ""
        self.api_key = ""
        self.log = None

    async def handler(self) -> Recording:
        """The recording itself."""
        return self._recording

    async def metrics(self) -> MetricsSnapshot:
        """The engine's counters for the answers played so far."""
        return self._recording.metrics()

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


def recordings_dir() -> Path:
    """Where the lab's recordings are kept: data/recordings of the repository."""
    return clone_path("recordings")


def _newest(model: str) -> Path:
    found = []
    for path in sorted(recordings_dir().glob("*.jsonl")):
        recording = Recording.load(path)
        if recording.provenance.model == model:
            found.append((recording.provenance.date, path))
    if not found:
        raise RecordingError(
            f"no recording of {model!r} in data/recordings; name one with recording=, or connect to an engine"
        )
    return max(found)[1]
