"""The KV cache: how much memory keys and values take, how it is allocated, and how many sessions fit into it.

A served model keeps keys and values for every token of every running request. On most machines this memory, not arithmetic,
decides how many requests run at once.

- `kv_size` gives the bytes of a token with every factor shown, and `blocks_for` the number of blocks that vLLM makes of a
  memory. `contiguous` and `paged` show how a memory is used without and with blocks.
- `Allocator` allocates blocks one call at a time, and `block_frames` shows the blocks of a live vLLM as it runs.
- `foretold` forecasts a scheduler's steps under a load. `step_memory`, `computed_twice` and `replayed` read the step log of
  a live engine.
- `plan` fits sessions onto a machine and names the limit that binds. `offload_break_even` tells when fetching a prefix from
  elsewhere is faster than computing it again.

Sizes and blocks are checked against a live vLLM. Speeds come from a latency model and are only as good as its constants.
"""

from labkit.kvcache.allocator import Allocator, BlockView, Snapshot
from labkit.kvcache.live import BlockFrame, Holder, Waiting, block_frames, watchable
from labkit.kvcache.offload import BreakEven, offload_break_even
from labkit.kvcache.planning import Plan, plan
from labkit.kvcache.size import KVSize, blocks_for, kv_size
from labkit.kvcache.steps import StepMemory, computed_twice, foretold, replayed, step_memory
from labkit.kvcache.waste import Lengths, Waste, contiguous, mean_block_waste, paged

__all__ = [
    "Allocator",
    "BlockFrame",
    "BlockView",
    "BreakEven",
    "Holder",
    "KVSize",
    "Lengths",
    "Plan",
    "Snapshot",
    "StepMemory",
    "Waiting",
    "Waste",
    "block_frames",
    "blocks_for",
    "computed_twice",
    "contiguous",
    "foretold",
    "kv_size",
    "mean_block_waste",
    "offload_break_even",
    "paged",
    "plan",
    "replayed",
    "step_memory",
    "watchable",
]
