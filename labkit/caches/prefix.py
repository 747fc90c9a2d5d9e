"""What an engine's prefix cache will serve, by vLLM's block rules, predicted without the engine.

`PrefixCache` predicts, request by request, the cached tokens that vLLM reports
(`usage.prompt_tokens_details.cached_tokens`), for requests that are served one after another. It uses the block manager of
the modelled engine, so the rules are the same: only full blocks hit, never the whole prompt; the least recently used block
is evicted first, and of one request the tail before the beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from labkit.request import ContextWindowExceeded, InvalidValue

if TYPE_CHECKING:
    from labkit.engines.modelled import Block, Evict


class PrefixCache:
    """The prefix cache of an engine with `num_blocks` KV blocks of `block_size` tokens, empty at first.

    `num_blocks` is the number that vLLM logs and exports (`vllm:cache_config_info`); vLLM keeps one of these blocks as a
    placeholder. `evict` replaces vLLM's eviction order (least recently used first) by your own. Raises `InvalidValue` for
    fewer than 2 blocks or an empty block.
    """

    def __init__(self, num_blocks: int, block_size: int, evict: Evict | None = None) -> None:
        from labkit.engines.modelled import BlockManager

        if num_blocks < 2 or block_size < 1:
            raise InvalidValue(f"{num_blocks} blocks of {block_size} tokens hold nothing; vLLM keeps one block back")
        self.block_size = block_size
        self._blocks = BlockManager(num_blocks, block_size, evict=evict)
        self._serial = count()

    def serve(self, prompt: Sequence[int], output: Sequence[int] = (), salt: str = "") -> int:
        """Serve a request, and return the number of tokens of `prompt` (token ids) that come from the cache.

        Afterwards the prompt and its `output` are in the cache, except for the last output token: nothing was computed from
        it. `salt` is vLLM's `cache_salt`, which keeps tenants apart. Raises `ContextWindowExceeded` for a request that does
        not fit into the whole cache.
        """
        room = self._blocks.capacity * self.block_size
        held = [*prompt, *output[:-1]]
        if len(held) > room:
            raise ContextWindowExceeded(f"{len(held)} tokens do not fit into {room} of KV cache; shorten the prompt")
        from labkit.engines.modelled import Sequence as EngineSequence

        sequence = EngineSequence(str(next(self._serial)), prompt, max(1, len(output)), salt=salt)
        found: list[Block] = self._blocks.cached_prefix(sequence)
        cached = len(found) * self.block_size
        self._blocks.allocate(sequence, len(prompt), found)
        sequence.tokens.extend(output[:-1])
        self._blocks.allocate(sequence, len(held))
        self._blocks.free(sequence)
        return cached


@dataclass(frozen=True, slots=True)
class Hits:
    """Hits of a trace of block ids: the blocks that were asked for, and how many of them were cached."""

    blocks: int
    hits: int

    @property
    def ratio(self) -> float:
        """Share of the blocks that were cached; 0 without blocks."""
        return self.hits / self.blocks if self.blocks else 0.0


def block_hits(requests: Iterable[Sequence[Hashable]], capacity: int | None = None) -> Hits:
    """Prefix-cache hits of requests given as block ids, each request wholly cached before the next one arrives.

    A block counts as a hit if it and all blocks before it in the request are cached. `capacity` is in blocks, None for an
    endless cache. The least recently used block is evicted first, and of one request the tail before the beginning, as in
    vLLM. Of a request that is larger than the cache, the beginning stays. Raises `InvalidValue` for a capacity below 1.
    """
    if capacity is not None and capacity < 1:
        raise InvalidValue(f"capacity is {capacity} blocks; give at least 1, or None for an endless cache")
    kept: OrderedDict[Hashable, None] = OrderedDict()
    blocks = hits = 0
    for ids in requests:
        blocks += len(ids)
        leading = True
        for id in ids:
            leading = leading and id in kept
            hits += leading
        # The tail first, so that the beginning is the most recently used and is evicted last.
        for id in reversed(ids if capacity is None else ids[:capacity]):
            kept[id] = None
            kept.move_to_end(id)
        while capacity is not None and len(kept) > capacity:
            kept.popitem(last=False)
    return Hits(blocks, hits)
