"""Where answers come from: live vLLM on this machine, any OpenAI-compatible endpoint, or a recording of one.

Each is a handler, and says where its numbers come from (`Provenance`). `connect()` picks the best engine there is. `host`
makes live engines fast to start, shares them between the user's processes, and leaves none behind. `metrics` reads the
engine's own counters; `recorder` records answers and `replay` plays them back. `absent` stands in where there is none.
"""

from labkit.engines.choice import connect, has_vllm, prepare
from labkit.engines.endpoint import Dialect, OpenAIEngine
from labkit.engines.engine import Engine
from labkit.engines.errors import EngineArgumentError, EngineRestarted, EngineStartError, MetricMissing, RecordingError
from labkit.engines.histogram import Histogram
from labkit.engines.host import EngineInfo, has_avx512, running_engines, running_host
from labkit.engines.metrics import MetricsSnapshot, parse_metrics
from labkit.engines.models import lab_model
from labkit.engines.provenance import Provenance, gpu, machine
from labkit.engines.recorder import Recorded, record
from labkit.engines.replay import Recording
from labkit.engines.scripted import ScriptedEngine
from labkit.engines.sources import recordings_dir
from labkit.engines.stand_in import absent
from labkit.engines.usage import usage_elsewhere, usage_of

__all__ = [
    "Dialect",
    "Engine",
    "EngineArgumentError",
    "EngineInfo",
    "EngineRestarted",
    "EngineStartError",
    "Histogram",
    "MetricMissing",
    "MetricsSnapshot",
    "OpenAIEngine",
    "Provenance",
    "Recorded",
    "Recording",
    "RecordingError",
    "ScriptedEngine",
    "absent",
    "connect",
    "gpu",
    "has_avx512",
    "has_vllm",
    "lab_model",
    "machine",
    "parse_metrics",
    "prepare",
    "record",
    "recordings_dir",
    "running_engines",
    "running_host",
    "usage_elsewhere",
    "usage_of",
]
