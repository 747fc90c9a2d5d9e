"""The allocator one can watch: worked examples, and what must hold whatever is done to it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labkit.kvcache import Allocator
from labkit.request import InvalidValue


def test_a_prompt_takes_whole_blocks_and_an_answer_one_at_a_time() -> None:
    allocator = Allocator(6, 4)
    assert allocator.allocate("a", range(7))
    before = allocator.snapshot()
    assert (dict(before.tables)["a"], before.empty_slots, len(before.free)) == ((1, 2), 1, 3)
    assert allocator.append("a", 7) == ()
    assert dict(allocator.snapshot().tables)["a"] == (1, 2), "the slot was empty"
    allocator.append("a", 8)
    after = allocator.snapshot()
    assert dict(after.tables)["a"] == (1, 2, 3)
    assert [block.tokens for block in after.blocks] == [4, 4, 1, 0, 0]
    assert [block.findable for block in after.blocks] == [True, True, False, False, False]


def test_an_equal_beginning_shares_full_blocks_only() -> None:
    allocator = Allocator(10, 4)
    allocator.allocate("a", range(10))
    allocator.allocate("b", [*range(8), 50, 51])
    snapshot = allocator.snapshot()
    assert dict(snapshot.tables) == {"a": (1, 2, 3), "b": (1, 2, 4)}
    assert [(block.id, block.holders, block.references) for block in snapshot.shared] == [
        (1, ("a", "b"), 2),
        (2, ("a", "b"), 2),
    ]
    uncached = Allocator(10, 4, caching=False)
    uncached.allocate("a", range(10))
    uncached.allocate("b", range(10))
    assert uncached.snapshot().shared == ()


def test_a_twin_shares_full_blocks_even_without_a_prefix_cache_and_copies_the_partial_one() -> None:
    allocator = Allocator(10, 4, caching=False)
    allocator.allocate("a", range(6))
    assert allocator.share("a", "twin")
    assert dict(allocator.snapshot().tables) == {"a": (1, 2), "twin": (1, 3)}
    allocator.append("twin", 99)
    allocator.free("a")
    snapshot = allocator.snapshot()
    assert [(block.id, block.references, block.tokens) for block in snapshot.blocks if block.holders] == [
        (1, 1, 4),
        (3, 1, 3),
    ]


def test_the_newest_sequence_is_preempted_and_resumes_with_its_tokens() -> None:
    allocator = Allocator(5, 4)
    allocator.allocate("a", range(8))
    allocator.allocate("b", range(100, 105))
    assert not allocator.allocate("c", range(200, 203)), "no block is left"
    assert allocator.append("a", 8) == ("b",)
    assert allocator.snapshot().waiting == ("b",)
    assert allocator.resume() is None, "one block is free and two are needed"
    allocator.free("a")
    assert allocator.resume() == "b"
    assert sum(block.tokens for block in allocator.snapshot().blocks if "b" in block.holders) == 5


def test_the_newest_that_finds_no_block_is_preempted_itself() -> None:
    allocator = Allocator(4, 2)
    allocator.allocate("a", range(4))
    allocator.allocate("b", range(10, 12))
    assert allocator.append("b", 12) == ("b",)
    allocator.free("a")
    assert allocator.resume() == "b"
    assert sum(block.tokens for block in allocator.snapshot().blocks if block.holders) == 3, "the token was not lost"


def test_a_freed_beginning_is_found_again_until_its_blocks_are_needed() -> None:
    allocator = Allocator(5, 2)
    allocator.allocate("a", range(5))
    allocator.free("a")
    assert allocator.snapshot().free == (3, 4, 2, 1), "unfindable ones are reused first, and tails before beginnings"
    allocator.allocate("b", [90, 91, 92, 93, 94])
    allocator.free("b")
    allocator.allocate("a", range(5))
    assert dict(allocator.snapshot().tables)["a"][0] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: Allocator(1, 4), "1 blocks of 4 tokens"),
        (lambda a: a.append("x", 1), "'x' holds no blocks; those that do: a"),
        (lambda a: a.allocate("a", [1]), "there is a sequence 'a' already"),
        (lambda a: a.share("a", "a"), "there is a sequence 'a' already"),
        (lambda a: a.allocate("b", range(9)), "'b' would have 9 tokens and all blocks together hold 8"),
        (lambda a: a.allocate("b", []), "0 prompt"),
        (lambda a: Allocator(3, 4).preempt(), "nobody can be preempted"),
    ],
)
def test_what_cannot_be_is_refused(call: object, message: str) -> None:
    allocator = Allocator(3, 4)
    allocator.allocate("a", range(3))
    with pytest.raises(InvalidValue, match=message):
        call(allocator)  # type: ignore[operator]
    assert dict(allocator.snapshot().tables) == {"a": (1,)}, "a refusal changes nothing"


class AnyUse(RuleBasedStateMachine):
    """Whatever is done, no block is lost, none is given twice, and every count is exact."""

    @initialize(blocks=st.integers(2, 9), size=st.integers(1, 4), caching=st.booleans())
    def start(self, blocks: int, size: int, caching: bool) -> None:
        self.allocator = Allocator(blocks, size, caching=caching)
        self.ids, self.size, self.caching = set(range(1, blocks)), size, caching
        self.tokens: dict[str, list[int]] = {}
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.serial = 0

    def name(self) -> str:
        self.serial += 1
        return f"s{self.serial}"

    @rule(data=st.data())
    def allocate(self, data: st.DataObject) -> None:
        prompt = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=len(self.ids) * self.size))
        name = self.name()
        if self.allocator.allocate(name, prompt):
            self.running.append(name)
            self.tokens[name] = prompt

    @precondition(lambda self: self.running)
    @rule(data=st.data(), token=st.integers(0, 1))
    def append(self, data: st.DataObject, token: int) -> None:
        name = data.draw(st.sampled_from(self.running))
        if len(self.tokens[name]) == len(self.ids) * self.size:
            with pytest.raises(InvalidValue):
                self.allocator.append(name, token)
            return
        self.tokens[name] = [*self.tokens[name], token]
        for victim in self.allocator.append(name, token):
            assert self.running.pop() == victim, "the newest goes"
            self.waiting.insert(0, victim)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        name, twin = data.draw(st.sampled_from(self.running)), self.name()
        if self.allocator.share(name, twin):
            self.running.append(twin)
            self.tokens[twin] = self.tokens[name]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.running + self.waiting))
        self.allocator.free(name)
        (self.running if name in self.running else self.waiting).remove(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.running))
        assert self.allocator.preempt(name) == name
        self.running.remove(name)
        self.waiting.insert(0, name)

    @rule()
    def resume(self) -> None:
        name = self.allocator.resume()
        if name is None:
            assert not self.waiting or self.running, "with all blocks free anybody fits"
        else:
            assert self.waiting.pop(0) == name
            self.running.append(name)

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        seen = self.allocator.snapshot()
        tables = dict(seen.tables)
        assert list(tables) == self.running
        assert seen.waiting == tuple(self.waiting)
        held = Counter(id for table in tables.values() for id in table)
        assert {block.id: block.references for block in seen.blocks if block.holders} == held
        assert sorted([*seen.free, *held]) == sorted(self.ids), "none lost, none both held and free, none free twice"
        content = {block.id: block for block in seen.blocks}
        for name, table in tables.items():
            tokens = self.tokens[name]
            assert len(table) == len(set(table)) == -(-len(tokens) // self.size)
            assert sum(content[id].tokens for id in table) == len(tokens)
        for block in seen.shared:
            beginnings = {tuple(self.tokens[n][: (tables[n].index(block.id) + 1) * self.size]) for n in block.holders}
            assert len(beginnings) == 1, "a block is shared only by sequences that agree up to its end"
            assert block.tokens == self.size


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
