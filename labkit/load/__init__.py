"""Load: sends requests as users or a recorded trace would, and keeps what happened to each.

Holds arrivals (Poisson, bursty, or those of a trace), requests of exact lengths, an open and a closed loop that keep every
timestamp, and the probe that fits a latency model to a live engine. Everything runs on both clocks.
"""

from labkit.load.arrivals import by_hour, constant, from_times, gamma, poisson
from labkit.load.forecast import compare, error_table, settings_of
from labkit.load.generate import Run, closed_loop, open_loop
from labkit.load.probing import ProbePlan, probe
from labkit.load.prompts import ExactLengths, MakeRequest
from labkit.load.traces import TraceRequest, as_load, read_trace, scaled, traces_dir
from labkit.load.views import TwoViews, two_views

__all__ = [
    "ExactLengths",
    "MakeRequest",
    "ProbePlan",
    "Run",
    "TraceRequest",
    "TwoViews",
    "as_load",
    "by_hour",
    "closed_loop",
    "compare",
    "constant",
    "error_table",
    "from_times",
    "gamma",
    "open_loop",
    "poisson",
    "probe",
    "read_trace",
    "scaled",
    "settings_of",
    "traces_dir",
    "two_views",
]
