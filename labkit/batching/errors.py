"""What can go wrong while requests and items wait."""

from __future__ import annotations

from labkit.request import LabError


class QueueFull(LabError):
    """As many wait as may; send less, or later."""


class BatchFailed(LabError):
    """The batch did not bring one result for each of its items."""


class BatcherClosed(LabError):
    """The batcher takes nothing any more."""


class FunctionFailed(LabError):
    """A function that a lever was made with failed, or gave what it must not; nothing was sent. No fault of the caller's."""
