"""The three places an engine comes from: live on this machine, shared at an address, or replayed from a recording.

Each is a value that says what is wanted, and connects when it is told to.
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
        """Connect, telling `report` each step of it."""
