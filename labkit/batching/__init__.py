"""Packing requests together: what a batch wins, and what waiting for it costs.

`Batcher` is for functions that take many items a call, `CoalescingWindow` for chat requests on their way to an engine.
`Pooled` lets kinds of work share an engine's seats by the rules of a `Gate`, and `OffPeak` holds what has time until then.
Inside an engine, `run_schedule` takes requests through four policies (`static`, `dynamic`, `continuous`, `chunked_prefill`)
over one step loop, step by step, and `fit_exponent` tells from measurements how much a larger batch is worth.
"""

from labkit.batching.batcher import Batcher
from labkit.batching.embed import embed_batcher
from labkit.batching.errors import BatcherClosed, BatchFailed, FunctionFailed, QueueFull
from labkit.batching.exponent import Exponent, fit_exponent
from labkit.batching.offpeak import OffPeak
from labkit.batching.policies import chunked_prefill, continuous, dynamic, static
from labkit.batching.pools import Gate, Pool, Pooled, feature_of
from labkit.batching.schedulers import Job, Limits, LoopStep, Schedule, Served, StepPlan, StepPolicy, View, run_schedule
from labkit.batching.window import CoalescingWindow

__all__ = [
    "BatchFailed",
    "Batcher",
    "BatcherClosed",
    "CoalescingWindow",
    "Exponent",
    "FunctionFailed",
    "Gate",
    "Job",
    "Limits",
    "LoopStep",
    "OffPeak",
    "Pool",
    "Pooled",
    "QueueFull",
    "Schedule",
    "Served",
    "StepPlan",
    "StepPolicy",
    "View",
    "chunked_prefill",
    "continuous",
    "dynamic",
    "embed_batcher",
    "feature_of",
    "fit_exponent",
    "run_schedule",
    "static",
]
