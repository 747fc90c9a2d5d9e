"""What can go wrong while requests and items wait."""

from __future__ import annotations

from labkit.request import LabError


class QueueFull(LabError):
    """The queue holds as many waiting requests or items as its limit allows; send fewer, or send later."""


class BatchFailed(LabError):
    """The batch was cancelled, or did not return one result for each of its items."""


class BatcherClosed(LabError):
    """The batcher is closed and accepts no more items."""


class FunctionFailed(LabError):
    """A function that a lever was made with failed or gave an invalid value; nothing was sent. Not the caller's fault."""
