"""Contiguous chunks against blocks: closed forms, and a memory painted slot by slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.kvcache import Lengths, Waste, contiguous, mean_block_waste, paged
from labkit.request import InvalidValue


@st.composite
def requests(draw: st.DrawFn) -> Lengths:
    prompt, output = draw(st.integers(1, 20)), draw(st.integers(0, 20))
    return Lengths(prompt, output, prompt + output + draw(st.integers(0, 20)))


workloads = st.lists(requests(), min_size=1, max_size=12)
shares = st.sampled_from([0.0, 0.3, 0.5, 1.0])


def test_chunks_of_the_maximum_waste_what_the_paper_names() -> None:
    # Three requests of 100 at most; 10 prompt tokens and 5 of 10 written; the third finds 30 tokens left.
    waste = contiguous([Lengths(10, 10, 100)] * 3, 230)
    assert waste == Waste(230, 2, used=30, reserved=10, internal=160, external=30, free=0)
    assert waste.utilization == 30 / 230
    assert paged([Lengths(10, 10, 100)] * 3, 230, 10) == Waste(230, 3, 45, 0, 15, 0, 170)


@pytest.mark.parametrize(("chunk", "fits"), [("max", 4), ("pow2", 8), ("oracle", 10)])
def test_as_many_equal_chunks_fit_as_the_division_says(chunk: str, fits: int) -> None:
    assert contiguous([Lengths(50, 52, 256)] * 50, 1024, chunk=chunk).sequences == fits  # type: ignore[arg-type]
    assert fits == 1024 // {"max": 256, "pow2": 128, "oracle": 102}[chunk]


@given(prompt=st.integers(1, 50), output=st.integers(0, 50), block=st.integers(1, 40), blocks=st.integers(1, 60))
def test_as_many_equal_sequences_fit_into_blocks_as_the_division_says(
    prompt: int, output: int, block: int, blocks: int
) -> None:
    waste = paged([Lengths(prompt, output, 200)] * 100, blocks * block, block, written=1)
    assert waste.sequences == min(100, blocks // -(-(prompt + output) // block))


def test_the_last_block_is_empty_by_half_a_block_on_average() -> None:
    waste = paged([Lengths(n, 0, 2000) for n in range(1, 16 * 20 + 1)], 10**6, 16)
    assert waste.internal / waste.sequences == mean_block_waste(16) == 7.5
    assert mean_block_waste(1) == 0


def test_a_hole_is_used_by_a_request_that_fits_and_lost_to_one_that_does_not() -> None:
    queue = [Lengths(30, 0, 30), Lengths(40, 0, 40), Lengths(30, 0, 30), Lengths(35, 0, 35), Lengths(5, 0, 5)]
    full = contiguous(queue, 100)
    assert (full.sequences, full.free, full.external) == (3, 0, 0)
    stuck = contiguous(queue, 100, departed={0, 2})
    assert (stuck.sequences, stuck.external) == (1, 60), "60 tokens are free, in two pieces of 30: 35 do not fit"
    filled = contiguous([*queue[:3], queue[4]], 100, departed={0})
    assert (filled.sequences, filled.free, filled.external) == (3, 25, 0)


@given(workload=workloads, capacity=st.integers(1, 150), written=shares, gone=st.sets(st.integers(0, 11)))
@pytest.mark.parametrize("chunk", ["max", "pow2", "oracle"])
def test_the_kinds_are_those_of_a_memory_painted_slot_by_slot(
    chunk: str, workload: list[Lengths], capacity: int, written: float, gone: set[int]
) -> None:
    memory: list[tuple[int, str] | None] = [None] * capacity

    def place(first: int) -> int:
        for index in range(first, len(workload)):
            request = workload[index]
            size = {"max": request.maximum, "oracle": request.total}.get(chunk, 0)
            if chunk == "pow2":
                size = 1
                while size < request.total:
                    size *= 2
                size = min(size, request.maximum)
            starts = [at for at in range(capacity - size + 1) if not any(memory[at : at + size])]
            if not starts:
                return index
            for slot in range(size):
                kind = "used" if slot < request.held(written) else "reserved" if slot < request.total else "internal"
                memory[starts[0] + slot] = (index, kind)
        return len(workload)

    waiting = place(0)
    if gone:
        memory[:] = [None if slot and slot[0] in gone else slot for slot in memory]
        waiting = place(waiting)
    found = contiguous(workload, capacity, chunk=chunk, written=written, departed=gone)  # type: ignore[arg-type]
    painted = [slot[1] if slot else "empty" for slot in memory]
    assert (found.used, found.reserved, found.internal) == tuple(map(painted.count, ("used", "reserved", "internal")))
    assert (found.external, found.free)[waiting == len(workload)] == painted.count("empty")
    assert found.sequences == len({slot[0] for slot in memory if slot})
    assert found.capacity == found.used + found.reserved + found.internal + found.external + found.free


@given(workload=workloads, capacity=st.integers(8, 150), written=shares, block=st.integers(1, 8))
def test_blocks_account_for_every_slot_and_hold_no_fewer_sequences(
    workload: list[Lengths], capacity: int, written: float, block: int
) -> None:
    found = paged(workload, capacity, block, written=written)
    assert found.capacity == found.used + found.internal + found.free == capacity // block * block
    assert (found.reserved, found.external) == (0, 0)
    assert found.internal <= found.sequences * (block - 1)
    assert paged(workload, capacity, 1, written=written).sequences >= contiguous(workload, capacity).sequences


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Lengths(0, 3, 9), "prompt 0, output 3, maximum 9"),
        (lambda: Lengths(5, 5, 9), "stay within the maximum"),
        (lambda: contiguous([], 0), "capacity is 0"),
        (lambda: contiguous([], 9, chunk="half"), "'half' is unknown"),  # type: ignore[arg-type]
        (lambda: paged([], 9, 10), "block_size is 10 of 9 tokens"),
        (lambda: paged([], 9, 3, written=1.5), "written is 1.5"),
        (lambda: mean_block_waste(0), "block_size is 0"),
    ],
)
def test_what_cannot_be_is_refused(call: object, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        call()  # type: ignore[operator]
