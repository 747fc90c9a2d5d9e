"""The KV cache's blocks: who holds them, which of them can be found again, and which is reused first.

The rules are vLLM V1's (vllm/v1/core/block_pool.py and kv_cache_manager.py, full attention): a block has a fixed number of
tokens; only full blocks are found again, by a hash of their tokens and all tokens before them; a freed block keeps its
content until it is handed out anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

from labkit.request import InvalidValue

if TYPE_CHECKING:
    from labkit.engines.modelled.sequence import Sequence


class Block:
    """One block: `users` sequences hold it; `hash` identifies its content, None while it cannot be found by content.

    For an eviction policy: how many prompts found the block since it was filled (`hits`), its place in its sequence
    (`depth`, 0 for the beginning), and when it was last given back (`freed`, in prompts, see `BlockManager.now`).
    """

    __slots__ = ("depth", "freed", "hash", "hits", "id", "users")

    def __init__(self, id: int) -> None:
        self.id = id
        self.users = 0
        self.hash: bytes | None = None
        self.hits = 0
        self.depth = 0
        self.freed = 0


# (the free blocks, all findable, least recently used first; the time in prompts) → the block to reuse.
Evict = Callable[[Items[Block], int], Block]


class BlockManager:
    """Hands out blocks, takes them back, and finds a prompt's beginning among those that still hold it.

    The free queue is in eviction order. A freed sequence's blocks join it tail first, so that beginnings, which other
    sequences may share, live longest. Blocks that cannot be found by content are reused before all others. `evict`, if
    given, chooses among those others instead of that order (vLLM has no such option); `allocate` raises `InvalidValue` where
    it chooses a block that is not free. `num_blocks` includes the placeholder; `block_size` is in tokens.
    """

    def __init__(self, num_blocks: int, block_size: int, caching: bool = True, evict: Evict | None = None) -> None:
        self.block_size = block_size
        self.caching = caching
        self.evict = evict
        self.now = 0  # the number of prompts that have been given their first blocks
        self.capacity = num_blocks - 1  # vLLM sets block 0 aside as a placeholder
        self._free = OrderedDict((id, Block(id)) for id in range(1, num_blocks))
        # Two sequences that compute the same content at the same time hold two blocks of one hash; the older block is found.
        self._cached: dict[bytes, OrderedDict[int, Block]] = {}

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds; some of them may still be found by their content."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """Fraction of the blocks that sequences hold, 0 to 1."""
        return 1 - self.num_free / self.capacity

    @property
    def free_queue(self) -> tuple[Block, ...]:
        """The blocks that no sequence holds, the one that is reused first in front."""
        return tuple(self._free.values())

    def cached_prefix(self, sequence: Sequence) -> list[Block]:
        """The longest run of full blocks from the sequence's start whose content is still there.

        Never the whole sequence: the last token must be computed to predict the next one. Hits are whole blocks, so a
        sequence that fills its blocks exactly has the last one computed again.
        """
        found: list[Block] = []
        if self.caching:
            for index in range((len(sequence.tokens) - 1) // self.block_size):
                same = self._cached.get(sequence.block_hash(index, self.block_size))
                if same is None:
                    break
                found.append(next(iter(same.values())))
        return found

    def can_allocate(self, sequence: Sequence, tokens: int, prefix: Items[Block] = ()) -> bool:
        """Whether there is room for the sequence's first `tokens` tokens, given that it will share `prefix`."""
        new = -(-tokens // self.block_size) - len(sequence.blocks) - len(prefix)
        leaving_the_free_queue = sum(block.users == 0 for block in prefix)
        return max(new, 0) + leaving_the_free_queue <= self.num_free

    def allocate(self, sequence: Sequence, tokens: int, prefix: Items[Block] = ()) -> None:
        """Give the sequence room for its first `tokens` tokens, sharing `prefix`. Its full blocks can be found at once.

        As in vLLM they can be found before the step ends, so requests scheduled in the same step may share them.
        """
        self.now += not sequence.blocks
        for block in prefix:
            if block.users == 0:
                del self._free[block.id]
            block.users += 1
            block.hits += 1
            sequence.blocks.append(block)
        sequence.hashed_blocks += len(prefix)
        while len(sequence.blocks) * self.block_size < tokens:
            sequence.blocks.append(self._take())
        if self.caching:
            full = min(tokens, len(sequence.tokens)) // self.block_size
            for index in range(sequence.hashed_blocks, full):
                block = sequence.blocks[index]
                block.hash = sequence.block_hash(index, self.block_size)
                block.hits, block.depth = 0, index
                self._cached.setdefault(block.hash, OrderedDict())[block.id] = block
            sequence.hashed_blocks = max(sequence.hashed_blocks, full)

    def free(self, sequence: Sequence) -> None:
        """Take the sequence's blocks back; their content can be found until they are reused."""
        released = []
        for block in reversed(sequence.blocks):
            block.users -= 1
            if block.users == 0:
                block.freed = self.now
                released.append(block)
                self._free[block.id] = block
        for block in reversed(released):
            if block.hash is None:
                self._free.move_to_end(block.id, last=False)
        sequence.blocks = []
        sequence.hashed_blocks = 0

    def _take(self) -> Block:
        block = next(iter(self._free.values()))
        if self.evict is not None and block.hash is not None:
            block = self.evict(self.free_queue, self.now)
            if not isinstance(block, Block) or self._free.get(block.id) is not block:
                raise InvalidValue(f"the eviction policy chose {block!r:.80}; only blocks of the free queue can be reused")
        del self._free[block.id]
        if block.hash is not None:
            same = self._cached[block.hash]
            del same[block.id]
            if not same:
                del self._cached[block.hash]
            block.hash = None
        block.users = 1
        return block
