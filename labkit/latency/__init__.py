"""Where the waiting comes from, and how much of it there will be.

Anatomy derives TTFT, TPOT, inter-chunk latency, goodput and percentiles from stored timestamps. The latency model says what
one engine step costs from its composition; its constants come from two datasheets (`datasheet_model`: the machine's from a
catalogue, the model's from its configuration) or from a short run on a live engine (`labkit.load.probe`).
"""

from labkit.latency.anatomy import METRICS, SLO, Sample, Summary, goodput, percentile, summary
from labkit.latency.built import CacheLayers
from labkit.latency.fit import Calibration, CalibrationError, FirstTokenPoint, StepPoint, VolleyPoint, fit, ttft_seconds
from labkit.latency.hardware import Hardware, catalogue, hardware
from labkit.latency.model import LatencyModel, StepWork
from labkit.latency.roofline import IDEAL, Reached, break_even_tokens, datasheet_model, kv_tokens
from labkit.latency.shape import ModelShape, Part, shape, shape_of

__all__ = [
    "IDEAL",
    "METRICS",
    "SLO",
    "CacheLayers",
    "Calibration",
    "CalibrationError",
    "FirstTokenPoint",
    "Hardware",
    "LatencyModel",
    "ModelShape",
    "Part",
    "Reached",
    "Sample",
    "StepPoint",
    "StepWork",
    "Summary",
    "VolleyPoint",
    "break_even_tokens",
    "catalogue",
    "datasheet_model",
    "fit",
    "goodput",
    "hardware",
    "kv_tokens",
    "percentile",
    "shape",
    "shape_of",
    "summary",
    "ttft_seconds",
]
