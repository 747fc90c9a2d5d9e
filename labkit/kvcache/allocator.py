"""A block allocator to watch: vLLM's rules for blocks (`labkit.engines.modelled.BlockManager`), one verb at a time.

Sequences are named; each verb changes the state at once, and `snapshot()` says who holds which block. There are no steps and
no times here, and a token counts as computed once it is given: `labkit.engines.modelled.ContinuousBatching` decides when
vLLM would do what.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from labkit.engines.modelled import Block, BlockManager, Sequence
from labkit.request import InvalidValue

_ENDLESS = 1 << 40  # a sequence here writes until it is freed


@dataclass(frozen=True, slots=True)
class BlockView:
    """One block: the sequences that `hold` it, its tokens, and whether an equal beginning would find it (`findable`).

    A block that nobody holds may still be findable, until it is handed out anew.
    """

    id: int
    holders: tuple[str, ...]
    tokens: int
    findable: bool

    @property
    def references(self) -> int:
        """How many sequences hold it."""
        return len(self.holders)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The allocator at one moment: all blocks by id, each running sequence's block ids, who waits (the next one first), and
    the free blocks in the order in which they are handed out.
    """

    blocks: tuple[BlockView, ...]
    tables: tuple[tuple[str, tuple[int, ...]], ...]
    waiting: tuple[str, ...]
    free: tuple[int, ...]
    block_size: int

    @property
    def shared(self) -> tuple[BlockView, ...]:
        """Blocks that more than one sequence holds."""
        return tuple(block for block in self.blocks if block.references > 1)

    @property
    def empty_slots(self) -> int:
        """Tokens' room in held blocks that holds none: internal fragmentation."""
        return sum(self.block_size - block.tokens for block in self.blocks if block.holders)


class Allocator:
    """Blocks for named sequences. `num_blocks` as vLLM reports it: one of them, the null block, is never handed out.

    `caching`: whether the prefix cache finds equal beginnings, as in vLLM by default.
    """

    def __init__(self, num_blocks: int, block_size: int, *, caching: bool = True) -> None:
        if num_blocks < 2 or block_size < 1:
            raise InvalidValue(
                f"{num_blocks} blocks of {block_size} tokens; use 2 or more, since one is kept back, of 1 token or more"
            )
        self._manager = BlockManager(num_blocks, block_size, caching)
        self._blocks = {block.id: block for block in self._manager.free_queue}
        self._running: dict[str, Sequence] = {}  # in order of admission
        self._waiting: dict[str, Sequence] = {}  # preempted, the last one that will resume first

    def allocate(self, name: str, prompt: Tokens[int]) -> bool:
        """Give a new sequence the blocks of its prompt, sharing what the prefix cache finds; False where it must wait."""
        self._new(name)
        self._fits(name, len(prompt))
        return self._admit(name, Sequence(name, prompt, _ENDLESS))

    def append(self, name: str, token: int) -> tuple[str, ...]:
        """Write one token. Where no block is free, the newest sequences are preempted for it; returns who was.

        A sequence that is the newest itself is preempted then, with its token, and waits.
        """
        sequence = self._get(name)
        self._fits(name, len(sequence.tokens) + 1)
        sequence.tokens.append(token)
        preempted = []
        while not self._manager.can_allocate(sequence, len(sequence.tokens)):
            preempted.append(self.preempt())
            if preempted[-1] == name:
                return tuple(preempted)
        self._manager.allocate(sequence, len(sequence.tokens))
        return tuple(preempted)

    def share(self, name: str, twin: str) -> bool:
        """A second sequence with the tokens of `name`, as for two samples of one prompt; False where there is no room.

        Full blocks are shared. A partial last block is copied at once, since both will write into it (the paper copies it
        on the first write; vLLM's engine today has no such fork and relies on the prefix cache).
        """
        source = self._get(name)
        self._new(twin)
        full = source.blocks[: len(source.tokens) // self._manager.block_size]
        return self._admit(twin, Sequence(twin, source.tokens, _ENDLESS), full)

    def free(self, name: str) -> None:
        """Take back what the sequence holds; a waiting one is forgotten."""
        if name in self._waiting:
            del self._waiting[name]
            return
        self._manager.free(self._get(name))
        del self._running[name]

    def preempt(self, name: str | None = None) -> str:
        """Take all blocks of `name` (by default the newest sequence) and let it wait with its tokens. Returns its name."""
        if name is None:
            if not self._running:
                raise InvalidValue("nobody holds a block, so nobody can be preempted; allocate first")
            name = next(reversed(self._running))
        sequence = self._get(name)
        self._manager.free(sequence)
        del self._running[name]
        self._waiting[name] = sequence
        return name

    def resume(self) -> str | None:
        """Admit the sequence that was preempted last, if there is one and room for it; returns its name."""
        if not self._waiting:
            return None
        name, sequence = next(reversed(self._waiting.items()))
        if not self._admit(name, sequence):
            return None
        del self._waiting[name]
        return name

    def snapshot(self) -> Snapshot:
        """Everything there is to see now."""
        size = self._manager.block_size
        holders: dict[int, list[str]] = {id: [] for id in self._blocks}
        filled: dict[int, int] = {}
        for name, sequence in self._running.items():
            for index, block in enumerate(sequence.blocks):
                holders[block.id].append(name)
                filled[block.id] = min(size, len(sequence.tokens) - index * size)
        return Snapshot(
            blocks=tuple(
                # A free block that can be found is full; what an unfindable one still holds is nothing to anybody.
                BlockView(
                    id,
                    tuple(holders[id]),
                    filled.get(id, size if block.hash is not None else 0),
                    block.hash is not None,
                )
                for id, block in sorted(self._blocks.items())
            ),
            tables=tuple((name, tuple(block.id for block in s.blocks)) for name, s in self._running.items()),
            waiting=tuple(reversed(self._waiting)),
            free=tuple(block.id for block in self._manager.free_queue),
            block_size=size,
        )

    def _admit(self, name: str, sequence: Sequence, prefix: Tokens[Block] | None = None) -> bool:
        found = self._manager.cached_prefix(sequence) if prefix is None else prefix
        if not self._manager.can_allocate(sequence, len(sequence.tokens), found):
            return False
        self._manager.allocate(sequence, len(sequence.tokens), found)
        self._running[name] = sequence
        return True

    def _get(self, name: str) -> Sequence:
        if name not in self._running:
            raise InvalidValue(f"{name!r} holds no blocks; those that do: {', '.join(self._running) or 'none'}")
        return self._running[name]

    def _new(self, name: str) -> None:
        if name in self._running or name in self._waiting:
            raise InvalidValue(f"there is a sequence {name!r} already; free it or take another name")

    def _fits(self, name: str, tokens: int) -> None:
        room = self._manager.capacity * self._manager.block_size
        if tokens > room:
            raise InvalidValue(
                f"{name!r} would have {tokens} tokens and all blocks together hold {room}; it could never run"
            )
