"""A block allocator to watch: vLLM's rules for blocks (`labkit.engines.modelled.BlockManager`), one call at a time.

Sequences have names. Each call changes the state at once, and `snapshot()` shows which sequence holds which block. There are
no steps and no times here, and a token counts as computed once it is given. When vLLM would make each of these calls is
modelled by `labkit.engines.modelled.ContinuousBatching`.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from labkit.engines.modelled import Block, BlockManager, Sequence
from labkit.request import InvalidValue

_ENDLESS = 1 << 40  # output length: a sequence here writes until it is freed


@dataclass(frozen=True, slots=True)
class BlockView:
    """One KV block: the sequences that hold it (`holders`), and the number of `tokens` in it.

    `findable`: whether the prefix cache would find it for a sequence with an equal beginning. A block that no sequence holds
    may still be findable, until it is handed out again.
    """

    id: int
    holders: tuple[str, ...]
    tokens: int
    findable: bool

    @property
    def references(self) -> int:
        """The number of sequences that hold the block."""
        return len(self.holders)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an `Allocator` at one moment.

    `blocks` are all blocks by id, `tables` the block ids of each running sequence, `waiting` the preempted sequences (the
    next to resume first), and `free` the ids of the free blocks in the order in which they are handed out.
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
        """Room for tokens in held blocks that is empty, in tokens: internal fragmentation."""
        return sum(self.block_size - block.tokens for block in self.blocks if block.holders)


class Allocator:
    """Allocates KV blocks to named sequences by vLLM's rules.

    `num_blocks` is as vLLM reports it: one of them, the null block, is never handed out. `block_size` is in tokens.
    `caching`: whether the prefix cache finds equal beginnings, as in vLLM by default. Raises `InvalidValue` for sizes that
    cannot work, and in its methods for unknown or repeated names and for sequences that could never fit.
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
        """Give a new sequence the blocks of its prompt, sharing those that the prefix cache finds.

        False where there is no room; the sequence is not kept then, so call this again later.
        """
        self._new(name)
        self._fits(name, len(prompt))
        return self._admit(name, Sequence(name, prompt, _ENDLESS))

    def append(self, name: str, token: int) -> tuple[str, ...]:
        """Write one token of sequence `name`; returns the names of the sequences that were preempted for it.

        Where no block is free, the newest sequences are preempted. If the writing sequence is itself the newest, it is
        preempted, keeps its token, and waits.
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
        """Start a second sequence, `twin`, with the tokens of `name`, as for two samples of one prompt; False without room.

        Full blocks are shared. A partial last block is copied at once, since both will write into it (the paper copies it
        on the first write; vLLM's engine today has no such fork and relies on the prefix cache).
        """
        source = self._get(name)
        self._new(twin)
        full = source.blocks[: len(source.tokens) // self._manager.block_size]
        return self._admit(twin, Sequence(twin, source.tokens, _ENDLESS), full)

    def free(self, name: str) -> None:
        """End a sequence and free its blocks; a waiting one is removed."""
        if name in self._waiting:
            del self._waiting[name]
            return
        self._manager.free(self._get(name))
        del self._running[name]

    def preempt(self, name: str | None = None) -> str:
        """Take all blocks of `name` (by default the newest sequence); it waits with its tokens. Returns its name."""
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
        """Admit the sequence that was preempted last and return its name; None where none waits or there is no room."""
        if not self._waiting:
            return None
        name, sequence = next(reversed(self._waiting.items()))
        if not self._admit(name, sequence):
            return None
        del self._waiting[name]
        return name

    def snapshot(self) -> Snapshot:
        """The state now."""
        size = self._manager.block_size
        holders: dict[int, list[str]] = {id: [] for id in self._blocks}
        filled: dict[int, int] = {}
        for name, sequence in self._running.items():
            for index, block in enumerate(sequence.blocks):
                holders[block.id].append(name)
                filled[block.id] = min(size, len(sequence.tokens) - index * size)
        return Snapshot(
            blocks=tuple(
                # A free block that can be found is full. One that cannot be found is of no use, so it counts as empty.
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
