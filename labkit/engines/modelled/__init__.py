"""An engine that computes time instead of text: vLLM's scheduling and KV cache, and a latency model for each step.

`ContinuousBatching` fills each step as vLLM V1's scheduler would, over a `BlockManager` that follows vLLM's rules for
blocks, prefix cache and eviction; tests compare both with vLLM's own classes. `ModelledEngine` is the handler over
that step loop, and `simulate` runs a long `Trace` through the same loop in compiled code, `simulate_closed` a closed loop
of users. None of their numbers was measured.
"""

from labkit.engines.modelled.blocks import Block, BlockManager, Evict
from labkit.engines.modelled.engine import ModelledEngine
from labkit.engines.modelled.fast import simulate, simulate_closed
from labkit.engines.modelled.scheduler import ContinuousBatching, Scheduler, Share, Step
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings
from labkit.engines.modelled.trace import SimulatedAnswers, Trace

__all__ = [
    "Block",
    "BlockManager",
    "ContinuousBatching",
    "EngineSettings",
    "Evict",
    "ModelledEngine",
    "Scheduler",
    "Sequence",
    "Share",
    "SimulatedAnswers",
    "Step",
    "Trace",
    "simulate",
    "simulate_closed",
]
