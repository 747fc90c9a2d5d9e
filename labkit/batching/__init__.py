"""Packing requests together: what a batch wins, and what waiting for it costs.

`Batcher` is for functions that take many items a call, `coalescing_window` for chat requests on their way to an engine.
`pooled` lets kinds of work share an engine's seats by the rules of a `Gate`, and `off_peak` holds what has time until then.
Inside an engine, `simulate` takes requests through four policies (`static`, `dynamic`, `continuous`, `chunked_prefill`)
over one step loop, step by step, and `fit_exponent` tells from measurements how much a larger batch is worth.
"""

from labkit.batching.dynamic import Batcher, BatcherClosed, BatchFailed, QueueFull
from labkit.batching.embed import embed_batcher
from labkit.batching.exponent import Exponent, fit_exponent
from labkit.batching.offpeak import off_peak
from labkit.batching.policies import chunked_prefill, continuous, dynamic, static
from labkit.batching.pools import Gate, Pool, feature_of, pooled
from labkit.batching.schedulers import Job, Limits, Plan, Policy, Schedule, Served, Step, View, simulate
from labkit.batching.window import coalescing_window

__all__ = [
    "BatchFailed",
    "Batcher",
    "BatcherClosed",
    "Exponent",
    "Gate",
    "Job",
    "Limits",
    "Plan",
    "Policy",
    "Pool",
    "QueueFull",
    "Schedule",
    "Served",
    "Step",
    "View",
    "chunked_prefill",
    "coalescing_window",
    "continuous",
    "dynamic",
    "embed_batcher",
    "feature_of",
    "fit_exponent",
    "off_peak",
    "pooled",
    "simulate",
    "static",
]
