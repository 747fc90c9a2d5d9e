"""The one idea of the package: a request flows through a stack of levers to an engine.

This room holds the values that flow (`Request`, `Chunk`, `Done`, `Usage`, `Timing`), the protocol they flow by (`Handler`),
the fold that turns a stream into an answer (`complete`), levers and how they are stacked (`Lever`, `Chooser`, `stack`), who
records an attempt (`metered`, `served`), the deadline every request may carry (`within`, `held`), a door for code without
an event loop (`Synchronous`), server-sent events as their bytes come (`Decoder`), and the two clocks (`clock`): the same
handlers run on wall time against a live engine and on virtual time against a modelled one.
"""

from labkit.request import clock, hops
from labkit.request.arrived import Arrived, UsageSource
from labkit.request.books import Books, Page, joined, served
from labkit.request.checks import is_whole
from labkit.request.clock import run_virtual
from labkit.request.codec import (
    chunk_from_json,
    chunk_to_json,
    done_from_json,
    done_to_json,
    event_to_json,
)
from labkit.request.deadline import held, within
from labkit.request.errors import (
    ContextWindowExceeded,
    DeadlineExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    InvalidValue,
    LabError,
    StreamIncomplete,
)
from labkit.request.handler import Completion, Handler, complete
from labkit.request.identity import asked, canonical
from labkit.request.lever import Chooser, Lever, Placed, books_in, metered, placed, stack
from labkit.request.sse import MAX_EVENT, Decoder, SentEvent
from labkit.request.streams import opened, released, taken_down
from labkit.request.sync import DoorClosed, Synchronous
from labkit.request.values import (
    CUT_SHORT,
    TOKEN_KINDS,
    Chunk,
    Done,
    Event,
    Fault,
    Message,
    Request,
    Timing,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = [
    "CUT_SHORT",
    "MAX_EVENT",
    "TOKEN_KINDS",
    "Arrived",
    "Books",
    "Chooser",
    "Chunk",
    "Completion",
    "ContextWindowExceeded",
    "DeadlineExceeded",
    "Decoder",
    "Done",
    "DoorClosed",
    "EngineError",
    "EngineStalled",
    "EngineUnreachable",
    "Event",
    "Fault",
    "Handler",
    "InvalidRequest",
    "InvalidValue",
    "LabError",
    "Lever",
    "Message",
    "Page",
    "Placed",
    "Request",
    "SentEvent",
    "StreamIncomplete",
    "Synchronous",
    "Timing",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "UsageSource",
    "asked",
    "books_in",
    "canonical",
    "chunk_from_json",
    "chunk_to_json",
    "clock",
    "complete",
    "done_from_json",
    "done_to_json",
    "event_to_json",
    "held",
    "hops",
    "is_whole",
    "joined",
    "metered",
    "opened",
    "placed",
    "released",
    "run_virtual",
    "served",
    "stack",
    "taken_down",
    "within",
]
