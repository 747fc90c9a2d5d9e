"""Packing requests together: what a batch wins, and what waiting for it costs.

`Batcher` is for functions that take many items a call, `coalescing_window` for chat requests on their way to an engine.
Inside an engine, `simulate` takes requests through four policies (`static`, `dynamic`, `continuous`, `chunked_prefill`)
over one step loop, step by step, and `fit_exponent` tells from measurements how much a larger batch is worth.
"""

from labkit.batching.dynamic import Batcher, BatcherClosed, BatchFailed, QueueFull
from labkit.batching.embed import embed_batcher
from labkit.batching.exponent import Exponent, fit_exponent
from labkit.batching.policies import chunked_prefill, continuous, dynamic, static
from labkit.batching.schedulers import Job, Limits, Plan, Policy, Schedule, Served, Step, View, simulate
from labkit.batching.window import coalescing_window

__all__ = [
    "BatchFailed",
    "Batcher",
    "BatcherClosed",
    "Exponent",
    "Job",
    "Limits",
    "Plan",
    "Policy",
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
    "fit_exponent",
    "simulate",
    "static",
]
