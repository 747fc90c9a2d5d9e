"""Named experiments on an engine: the same functions measure live in a chapter and make the recordings it is compared with.

`sweeps` are the measurements (each gives plain rows), `Experiment` names one with its points and engine arguments, `run_all`
runs them on whatever engine is there and writes each row with the provenance of its engine as soon as it is measured, and
`recordings` finds what has been recorded, here or elsewhere.
"""

from labkit.experiments.catalogue import EXPERIMENTS, Experiment, Measurement, jobs
from labkit.experiments.measured import RECORDINGS, Measured, keep, recordings
from labkit.experiments.recording import run_all
from labkit.experiments.sweeps import concurrency, preemption, prefill, prefix_cache, speculation

__all__ = [
    "EXPERIMENTS",
    "RECORDINGS",
    "Experiment",
    "Measured",
    "Measurement",
    "concurrency",
    "jobs",
    "keep",
    "preemption",
    "prefill",
    "prefix_cache",
    "recordings",
    "run_all",
    "speculation",
]
