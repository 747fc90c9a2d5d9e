"""The three places an engine comes from: live on this machine, shared at an address, or replayed from a recording.

Each source is a value that describes the engine that is wanted; its `connect` connects to it.
"""

from typing import Protocol

from labkit.engines.engine import Engine
from labkit.engines.sources.live import Live, Progress
from labkit.engines.sources.replayed import Replayed, recordings_dir
from labkit.engines.sources.shared import Shared

__all__ = ["EngineSource", "Live", "Progress", "Replayed", "Shared", "recordings_dir"]


class EngineSource(Protocol):
    """Where an engine comes from."""

    async def connect(self, report: Progress) -> Engine:
        """Connect, and call `report` with each step."""
