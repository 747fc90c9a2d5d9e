"""Packing requests together: what a batch gains, and what waiting for it costs.

`Batcher` is for functions that take many items per call, `CoalescingWindow` for chat requests on their way to an engine.
`Pooled` lets kinds of work share an engine's seats by the rules of a `Gate`. `OffPeak` holds requests that are not urgent
until the engine is less busy. To see what happens inside an engine, `run_schedule` takes requests step by step through a
loop under one of four policies (`static`, `dynamic`, `continuous`, `chunked_prefill`). `fit_exponent` tells from
measurements how much throughput a larger batch gains.
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
