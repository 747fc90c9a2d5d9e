"""Where the waiting comes from, and how much of it there will be.

Anatomy derives TTFT, TPOT, inter-chunk latency, goodput and percentiles from stored timestamps. The latency model says what
one engine step costs from its composition; its constants come from a datasheet (hardware catalogue and model shape) or from
a short calibration on a live engine.
"""

from labkit.latency.model import LatencyModel, StepWork

__all__ = ["LatencyModel", "StepWork"]
