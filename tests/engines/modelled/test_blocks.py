from __future__ import annotations

from labkit.engines.modelled.blocks import BlockManager
from labkit.engines.modelled.scheduler import ContinuousBatching
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings


def prefilled(manager: BlockManager, id: str, prompt: range, salt: str = "") -> Sequence:
    sequence = Sequence(id, prompt, 1, salt=salt)
    manager.allocate(sequence, len(prompt), manager.cached_prefix(sequence))
    return sequence


def hit(manager: BlockManager, prompt: range, salt: str = "") -> int:
    return len(manager.cached_prefix(Sequence("probe", prompt, 1, salt=salt))) * manager.block_size


def test_a_fully_cached_prompt_still_computes_its_last_block():
    manager = BlockManager(num_blocks=9, block_size=4)
    prefilled(manager, "a", range(10))
    assert hit(manager, range(10)) == 8  # two full blocks; the partial third is never found


def test_on_an_exact_block_multiple_the_last_block_is_computed_again():
    manager = BlockManager(num_blocks=9, block_size=4)
    prefilled(manager, "a", range(8))
    assert hit(manager, range(8)) == 4
    assert hit(manager, range(9)) == 8


def test_a_prefix_shorter_than_a_block_hits_nothing():
    manager = BlockManager(num_blocks=9, block_size=16)
    prefilled(manager, "a", range(15))
    assert hit(manager, range(64)) == 0


def test_equal_blocks_after_different_beginnings_are_different():
    manager = BlockManager(num_blocks=9, block_size=4)
    prefilled(manager, "a", range(8))
    other = Sequence("b", [9, 9, 9, 9, *range(4, 8), 0], 1)
    assert manager.cached_prefix(other) == []


def test_another_salt_shares_nothing():
    manager = BlockManager(num_blocks=9, block_size=4)
    prefilled(manager, "a", range(9), salt="team-a")
    assert hit(manager, range(9), salt="team-a") == 8
    assert hit(manager, range(9), salt="team-b") == 0


def test_sharers_hold_the_same_blocks_and_the_last_one_frees_them():
    manager = BlockManager(num_blocks=9, block_size=4)
    first = prefilled(manager, "a", range(9))
    second = prefilled(manager, "b", range(10))
    assert [block.id for block in first.blocks[:2]] == [block.id for block in second.blocks[:2]]
    assert manager.num_free == 8 - 4
    manager.free(first)
    assert manager.num_free == 8 - 3
    manager.free(second)
    assert (manager.num_free, manager.usage) == (8, 0.0)


def test_the_tail_of_a_freed_sequence_is_evicted_before_its_beginning():
    manager = BlockManager(num_blocks=5, block_size=4)
    manager.free(prefilled(manager, "a", range(16)))
    prefilled(manager, "b", range(100, 108))
    assert hit(manager, range(17)) == 8


def test_blocks_that_nobody_can_find_are_reused_first():
    manager = BlockManager(num_blocks=5, block_size=4)
    manager.free(prefilled(manager, "a", range(14)))  # three full blocks and a partial one
    prefilled(manager, "b", range(100, 103))
    assert hit(manager, range(14)) == 12


def test_without_prefix_caching_nothing_is_found():
    manager = BlockManager(num_blocks=9, block_size=4, caching=False)
    prefilled(manager, "a", range(9))
    assert hit(manager, range(9)) == 0


def test_a_preempted_sequence_finds_what_it_had_computed_when_it_comes_back():
    scheduler = ContinuousBatching(EngineSettings(num_blocks=8, block_size=4, max_num_seqs=2, max_num_batched_tokens=64))
    old, young = Sequence("old", range(10), 12), Sequence("young", range(100, 111), 4)
    scheduler.add(old)
    scheduler.add(young)
    steps = []
    while scheduler.num_running or scheduler.num_waiting:
        step = scheduler.schedule(0.0)
        assert step is not None
        steps.append(step)
        scheduler.complete(step)
    [preempting] = [step for step in steps if step.preempted]
    assert preempting.preempted == ("young",)
    back = next(step for step in steps[preempting.index :] for share in step.scheduled if share.id == "young")
    [share] = [share for share in back.scheduled if share.id == "young"]
    # It had 14 tokens, 13 of them computed, in 4 blocks. The old one then grew by three: first into the block that was not
    # full, then into the full ones from the tail. The first block is still there, and only what follows it is computed.
    assert (share.context, share.new) == (4, 10)
    assert young.preemptions == 1
    assert young.cached_tokens == 0  # billed as it was first admitted
