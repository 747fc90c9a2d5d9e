"""Named experiments on an engine: the same functions measure live in a chapter and make the recordings it is compared with.

`sweeps` are the measurements (each gives plain rows), `Experiment` names one with its points and engine arguments, `record`
runs them on whatever engine is there and writes each row with the provenance of its engine as soon as it is measured, and
`recordings` finds what has been recorded, here or elsewhere.
"""

from labkit.experiments.catalogue import EXPERIMENTS, Experiment, Job, jobs
from labkit.experiments.measured import Measured, recordings
from labkit.experiments.record import record
from labkit.experiments.sweeps import concurrency, preemption, prefill, prefix_cache, speculation

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Job",
    "Measured",
    "concurrency",
    "jobs",
    "preemption",
    "prefill",
    "prefix_cache",
    "record",
    "recordings",
    "speculation",
]
