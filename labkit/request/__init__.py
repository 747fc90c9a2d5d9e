"""The one idea of the package: a request flows through a stack of handlers to an engine.

This room holds the values that flow (`Request`, `Chunk`, `Done`, `Usage`, `Timing`), the protocol they flow by (`Handler`),
the fold that turns a stream into an answer (`complete`), how handlers are stacked (`stack`), the deadline every request may
carry (`deadlines`), server-sent events as their bytes come (`Decoder`), and the two clocks (`clock`): the same handlers run
on wall time against a live engine and on virtual time against a modelled one.
"""

from labkit.request import clock
from labkit.request.deadline import deadlines, within
from labkit.request.errors import (
    ContextWindowExceeded,
    DeadlineExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    LabError,
    StreamIncomplete,
)
from labkit.request.handler import Completion, Handler, Lever, complete, stack
from labkit.request.sse import Decoder, SentEvent
from labkit.request.values import Chunk, Done, Event, Message, Request, Timing, TokenLogprob, ToolCall, ToolCallDelta, Usage

__all__ = [
    "Chunk",
    "Completion",
    "ContextWindowExceeded",
    "DeadlineExceeded",
    "Decoder",
    "Done",
    "EngineError",
    "EngineStalled",
    "EngineUnreachable",
    "Event",
    "Handler",
    "InvalidRequest",
    "LabError",
    "Lever",
    "Message",
    "Request",
    "SentEvent",
    "StreamIncomplete",
    "Timing",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "clock",
    "complete",
    "deadlines",
    "stack",
    "within",
]
