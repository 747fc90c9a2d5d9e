"""Named experiments on an engine. A chapter measures live with the functions that also made the recordings it shows.

The functions of `sweeps` measure; each gives plain rows. `Experiment` gives one of them a name. `Measurement` is an
experiment with its model, engine arguments and points. `run_all` runs measurements on the engine that this machine has, and
writes each row as soon as it is measured, with the provenance of its engine. `recordings` finds what was recorded, here or
elsewhere. `silicon_points` are public measurements on GPUs, and what the latency model says of them.
"""

from labkit.experiments.catalogue import EXPERIMENTS, Experiment, Measurement, jobs
from labkit.experiments.measured import RECORDINGS, Measured, recordings
from labkit.experiments.public_silicon import (
    SiliconError,
    SiliconPace,
    SiliconPoint,
    fit_reached,
    silicon,
    silicon_errors,
    silicon_points,
    silicon_says,
)
from labkit.experiments.recording import run_all
from labkit.experiments.sweeps import concurrency, preemption, prefill, prefix_cache, speculation

__all__ = [
    "EXPERIMENTS",
    "RECORDINGS",
    "Experiment",
    "Measured",
    "Measurement",
    "SiliconError",
    "SiliconPace",
    "SiliconPoint",
    "concurrency",
    "fit_reached",
    "jobs",
    "preemption",
    "prefill",
    "prefix_cache",
    "recordings",
    "run_all",
    "silicon",
    "silicon_errors",
    "silicon_points",
    "silicon_says",
    "speculation",
]
