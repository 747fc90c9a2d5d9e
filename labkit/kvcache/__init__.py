"""The KV cache's room: how much memory keys and values take, how it is dealt out, and how many sessions that makes.

A served model keeps keys and values for every token of every request that runs, and on most machines that memory, not
arithmetic, decides how many run at once. `kv_size` says what a token costs with every factor in sight, and `blocks_for` how
many blocks vLLM makes of a memory; `contiguous` and `paged` show what becomes of it with and without blocks; `Allocator`
deals blocks out while one watches, and `block_frames` shows those of a live vLLM as it runs; `foretold` says what a load
will do to a scheduler, and `step_memory`, `computed_twice` and `replayed` read from a live one's step log what it did;
`plan` fits sessions onto a machine and names the limit that binds; `offload_break_even` tells when fetching a prefix from
elsewhere beats computing it again. Sizes and blocks are checked against a live vLLM; the speeds are a latency model's, and
only as good as its constants.
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
