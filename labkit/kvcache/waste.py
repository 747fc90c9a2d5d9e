"""KV memory that holds no token: one contiguous chunk per sequence compared with blocks.

The terms are those of the vLLM paper (Kwon et al., arXiv 2309.06180, section 3.1). A sequence gets a chunk when it arrives.
The chunk has *used* room, room *reserved* for tokens that the sequence will write, and *internal* fragmentation: room that
it will never fill. The room between and behind the chunks, in pieces too small for the next sequence, is *external*
fragmentation. The paper's baselines take a chunk of the longest length that a request may have ("max"), of the real length
rounded up to a power of two ("pow2"), or of exactly the real length, which is not known in advance ("oracle").

Blocks are handed out one at a time, when a token needs one, and any block will do for any sequence. So nothing is reserved,
nothing is external, and internal fragmentation is only the rest of each sequence's last block.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from labkit.request import InvalidValue

Chunk = Literal["max", "pow2", "oracle"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """One request in tokens: its `prompt`, the `output` that it will write, and `maximum`, the most of both together.

    Raises `InvalidValue` for a prompt below 1, an output below 0, and a total above the maximum.
    """

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
        """Tokens of the request at its end."""
        return self.prompt + self.output

    def held(self, written: float) -> int:
        """Tokens of the request when a share `written` (0 to 1) of its output is written."""
        return self.prompt + int(self.output * written)


@dataclass(frozen=True, slots=True)
class Waste:
    """How a memory of `capacity` tokens is used with `sequences` of the requests in it; all other fields are in tokens.

    `used`, `reserved`, `internal`, `external` and `free` add up to the capacity. `free` is room that the next sequence could
    use, or that running ones can grow into.
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
        """Share of the capacity that holds tokens, 0 to 1. The paper measured 0.20 to 0.38 for chunks, 0.96 for blocks."""
        return self.used / self.capacity


def contiguous(
    lengths: Sequence[Lengths],
    capacity: int,
    *,
    chunk: Chunk = "max",
    written: float = 0.5,
    departed: Collection[int] = (),
) -> Waste:
    """The use of a memory of `capacity` tokens when each sequence has one chunk.

    Chunks are placed where they first fit, in order, until a request has to wait. Then the requests at the indices in
    `departed` leave, and waiting ones are placed into the holes, in order, until one does not fit. `chunk` is the size of a
    chunk, as the module says; `written` (0 to 1) is the share of its output that each has written. Raises `InvalidValue` for
    an unknown `chunk` and for numbers out of range.
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
    """The use of a memory of `capacity` tokens when sequences hold blocks of `block_size` tokens.

    Requests are admitted in order until there are too few blocks for the tokens that one has. The capacity is counted in
    whole blocks. With `written` = 1 all that are admitted can run to their end; with less, more run at once, and some may be
    preempted later. Raises `InvalidValue` for numbers out of range.
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
    """Mean number of empty tokens in a sequence's last block, if every end in it is equally likely: (block_size − 1) / 2."""
    if block_size < 1:
        raise InvalidValue(f"block_size is {block_size}; use 1 token or more")
    return (block_size - 1) / 2


def _place(arena: list[tuple[int, int, int]], lengths: Sequence[Lengths], first: int, capacity: int, chunk: Chunk) -> int:
    """Place the requests from index `first` on where they first fit; returns the index of the one that has to wait."""
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
