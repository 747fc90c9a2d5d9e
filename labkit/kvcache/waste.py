"""Where KV memory goes that holds no token: one contiguous chunk per sequence against blocks.

The terms are those of the vLLM paper (Kwon et al., arXiv 2309.06180, section 3.1). A chunk that a sequence gets when it
comes has *used* room, room *reserved* for tokens that it will write, and *internal* fragmentation: room that it will never
fill. What is left between and behind the chunks, in pieces too small for the sequence that comes next, is *external*
fragmentation. The paper's baselines take a chunk of the longest length a request may have ("max"), of the next power of two
of its real one ("pow2"), or of exactly its real one, which nobody can know ("oracle").

Blocks come one at a time, when a token needs one, and any block does for any sequence: nothing is reserved, nothing is
external, and internal is only the rest of each sequence's last block.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.request import InvalidValue

Chunk = Literal["max", "pow2", "oracle"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """One request in tokens: its prompt, what it will write, and `maximum`, the most that prompt and answer may be."""

    prompt: int
    output: int
    maximum: int

    def __post_init__(self) -> None:
        if self.prompt < 1 or self.output < 0 or self.total > self.maximum:
            raise InvalidValue(
                f"prompt {self.prompt}, output {self.output}, maximum {self.maximum}: a request has a prompt of 1 or more "
                "tokens, and prompt and output together stay within the maximum"
            )

    @property
    def total(self) -> int:
        """Tokens it has in the end."""
        return self.prompt + self.output

    def held(self, written: float) -> int:
        """Tokens it has when the share `written` of its output, 0 to 1, is written."""
        return self.prompt + int(self.output * written)


@dataclass(frozen=True, slots=True)
class Waste:
    """What a memory of `capacity` tokens holds when `sequences` of the requests are in it. All but that in tokens.

    The five kinds add up to the capacity. `free` is room that the next one could use, or that running ones can grow into.
    """

    capacity: int
    sequences: int
    used: int
    reserved: int
    internal: int
    external: int
    free: int

    @property
    def utilization(self) -> float:
        """Share of the capacity that holds tokens, 0 to 1; the paper measured 0.20 to 0.38 for chunks, 0.96 for blocks."""
        return self.used / self.capacity


def contiguous(
    lengths: Sequence[Lengths],
    capacity: int,
    *,
    chunk: Chunk = "max",
    written: float = 0.5,
    departed: Collection[int] = (),
) -> Waste:
    """The memory when each sequence has one chunk, placed where it first fits, in order, until one has to wait.

    Then the requests of the indices `departed` leave, and the waiting ones go into the holes, in order, until one does not
    fit. `written`: the share of its output that each has written by now.
    """
    _check(capacity, written)
    if chunk not in ("max", "pow2", "oracle"):
        raise InvalidValue(f"chunk {chunk!r} is unknown; use 'max', 'pow2' or 'oracle'")
    arena: list[tuple[int, int, int]] = []  # (start, size, index), in order of their place
    waiting = _place(arena, lengths, 0, capacity, chunk)
    if departed:
        arena = [entry for entry in arena if entry[2] not in departed]
        waiting = _place(arena, lengths, waiting, capacity, chunk)
    inside = [(size, lengths[index]) for _, size, index in arena]
    used = sum(request.held(written) for _, request in inside)
    total = sum(request.total for _, request in inside)
    chunks = sum(size for size, _ in inside)
    left = capacity - chunks
    stuck = waiting < len(lengths)
    return Waste(capacity, len(inside), used, total - used, chunks - total, left if stuck else 0, 0 if stuck else left)


def paged(lengths: Sequence[Lengths], capacity: int, block_size: int, *, written: float = 0.5) -> Waste:
    """The memory when sequences hold blocks of `block_size` tokens, in order, until one finds too few for what it has.

    The capacity is counted in whole blocks. With `written` = 1 all that are counted can run to their end undisturbed; with
    less, more run at once, and some may be preempted later.
    """
    _check(capacity, written)
    if not 1 <= block_size <= capacity:
        raise InvalidValue(f"block_size is {block_size} of {capacity} tokens; use 1 token or more, and room for a block")
    blocks = capacity // block_size
    taken = used = count = 0
    for request in lengths:
        needs = -(-request.held(written) // block_size)
        if taken + needs > blocks:
            break
        taken, used, count = taken + needs, used + request.held(written), count + 1
    return Waste(blocks * block_size, count, used, 0, taken * block_size - used, 0, (blocks - taken) * block_size)


def mean_block_waste(block_size: int) -> float:
    """Tokens left empty in a sequence's last block, on average over all places to end in it: (block_size − 1) / 2."""
    if block_size < 1:
        raise InvalidValue(f"block_size is {block_size}; use 1 token or more")
    return (block_size - 1) / 2


def _place(arena: list[tuple[int, int, int]], lengths: Sequence[Lengths], first: int, capacity: int, chunk: Chunk) -> int:
    """First fit for the requests from `first` on; the index of the one that has to wait."""
    for index in range(first, len(lengths)):
        size, start = _chunk(lengths[index], chunk), 0
        for at, (taken, length, _) in enumerate(arena):
            if taken - start >= size:
                arena.insert(at, (start, size, index))
                break
            start = taken + length
        else:
            if capacity - start < size:
                return index
            arena.append((start, size, index))
    return len(lengths)


def _chunk(request: Lengths, chunk: Chunk) -> int:
    if chunk == "max":
        return request.maximum
    return request.total if chunk == "oracle" else min(request.maximum, 1 << (request.total - 1).bit_length())


def _check(capacity: int, written: float) -> None:
    if capacity < 1:
        raise InvalidValue(f"capacity is {capacity} tokens; use 1 or more")
    if not 0 <= written <= 1:
        raise InvalidValue(f"written is {written}; it is a share of the output, 0 to 1")
