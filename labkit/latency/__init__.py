"""Where the waiting comes from, and how much of it there will be.

`anatomy` derives TTFT, TPOT, inter-chunk latency, goodput and percentiles from stored timestamps. The latency model tells
how long an engine step takes from its composition. Its constants come from two datasheets (`datasheet_model`: the machine's
from a catalogue, the model's from its configuration) or from a short run on a live engine (`labkit.load.probing`).
"""

from labkit.latency.anatomy import METRICS, SLO, Sample, Summary, goodput, percentile, summary
from labkit.latency.built import CacheLayers, builds
from labkit.latency.cards import GIGA, Hardware, catalogue, hardware
from labkit.latency.fields import layers_by_fields
from labkit.latency.fitting import (
    CalibrationError,
    FirstTokenPoint,
    LatencyCalibration,
    StepPoint,
    VolleyPoint,
    fit,
    ttft_seconds,
)
from labkit.latency.model import LatencyModel, StepWork
from labkit.latency.model_shape import Config, ModelShape, Part, read_config, shape, shape_names, shape_of, shape_path
from labkit.latency.roofline import HOPPER, IDEAL, Reached, break_even_tokens, datasheet_model, kv_tokens
from labkit.latency.weights import precision_bytes

__all__ = [
    "GIGA",
    "HOPPER",
    "IDEAL",
    "METRICS",
    "SLO",
    "CacheLayers",
    "CalibrationError",
    "Config",
    "FirstTokenPoint",
    "Hardware",
    "LatencyCalibration",
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
    "builds",
    "catalogue",
    "datasheet_model",
    "fit",
    "goodput",
    "hardware",
    "kv_tokens",
    "layers_by_fields",
    "percentile",
    "precision_bytes",
    "read_config",
    "shape",
    "shape_names",
    "shape_of",
    "shape_path",
    "summary",
    "ttft_seconds",
]
