"""The long build of chapter 08: paged memory for sequences that grow, fork and lose their blocks."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from labkit.kvcache import Allocator
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, equals, holds

Copy = Callable[[int, int], None]


class PagedMemory:
    """`num_blocks` blocks of `block_size` tokens, for named sequences; `copy(source, target)` copies a block's content."""

    def __init__(self, num_blocks: int, block_size: int, copy: Callable[[int, int], None]) -> None:
        self.block_size = block_size
        self.copy = copy
        self._free = list(range(num_blocks))
        self._users = [0] * num_blocks  # how many running sequences hold the block
        self._tokens: dict[str, int] = {}  # of all sequences
        self._tables: dict[str, list[int]] = {}  # of the running ones, in order of admission
        self._waiting: list[str] = []  # the one preempted last at the end

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free)

    @property
    def empty_slots(self) -> int:
        """Room for tokens in held blocks that is empty."""
        filled = {
            block: min(self.block_size, self._tokens[name] - index * self.block_size)
            for name, table in self._tables.items()
            for index, block in enumerate(table)
        }
        return sum(self.block_size - tokens for tokens in filled.values())

    def table(self, name: str) -> list[int]:
        """The blocks of a running sequence, in the order of its tokens."""
        return list(self._tables[name])

    def allocate(self, name: str, tokens: int) -> bool:
        """Start a sequence of so many tokens; False, and no change, without room."""
        needed = -(-tokens // self.block_size)
        if needed > len(self._free):
            return False
        self._tokens[name] = tokens
        self._tables[name] = [self._take() for _ in range(needed)]
        return True

    def append(self, name: str) -> list[str]:
        """Make room for one more token of a running sequence; returns who was preempted for it."""
        preempted = []
        table = self._tables[name]
        full = self._tokens[name] % self.block_size == 0
        self._tokens[name] += 1
        while not self._free and (full or self._users[table[-1]] > 1):
            preempted.append(self._preempt())
            if preempted[-1] == name:
                return preempted
        if full:
            table.append(self._take())
        elif self._users[table[-1]] > 1:
            own = self._take()
            self.copy(table[-1], own)
            self._users[table[-1]] -= 1
            table[-1] = own
        return preempted

    def fork(self, name: str, twin: str) -> None:
        """Start a second sequence with the tokens of a running one, in the same blocks."""
        self._tokens[twin] = self._tokens[name]
        self._tables[twin] = list(self._tables[name])
        for block in self._tables[twin]:
            self._users[block] += 1

    def free(self, name: str) -> None:
        """End a sequence, running or waiting."""
        del self._tokens[name]
        if name in self._waiting:
            self._waiting.remove(name)
        else:
            self._give_back(name)

    def resume(self) -> str | None:
        """Give the sequence that was preempted last its blocks again; its name, or None."""
        if not self._waiting or not self.allocate(self._waiting[-1], self._tokens[self._waiting[-1]]):
            return None
        return self._waiting.pop()

    def _take(self) -> int:
        block = self._free.pop()
        self._users[block] = 1
        return block

    def _give_back(self, name: str) -> None:
        for block in self._tables.pop(name):
            self._users[block] -= 1
            if not self._users[block]:
                self._free.append(block)

    def _preempt(self) -> str:
        name = next(reversed(self._tables))
        self._give_back(name)
        self._waiting.append(name)
        return name


Answer = Callable[[int, int, Copy], PagedMemory]


class LabMemory(PagedMemory):
    """The lab's allocator under the calls of `PagedMemory` that `served` makes."""

    def __init__(self, num_blocks: int, block_size: int, _: Copy) -> None:
        self._lab = Allocator(num_blocks + 1, block_size, caching=False)  # one of them is a placeholder
        self._serial = count()

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._lab.snapshot().free)

    @property
    def empty_slots(self) -> int:
        """Room for tokens in held blocks that is empty."""
        return self._lab.snapshot().empty_slots

    def allocate(self, name: str, tokens: int) -> bool:
        """Start a sequence of so many tokens; False without room."""
        return self._lab.allocate(name, [next(self._serial) for _ in range(tokens)])

    def append(self, name: str) -> list[str]:
        """Write one more token; returns who was preempted for it."""
        return list(self._lab.append(name, next(self._serial)))

    def free(self, name: str) -> None:
        """End a sequence."""
        self._lab.free(name)

    def resume(self) -> str | None:
        """Give the sequence that was preempted last its blocks again; its name, or None."""
        return self._lab.resume()


def served(
    answer: Answer, num_blocks: int, block_size: int, load: Sequence[tuple[int, int]], clients: int
) -> list[dict[str, int]]:
    """Serve a load of (prompt, answer) tokens from a memory, with at most `clients` requests at a time: a row for each step.

    In a step, those who were preempted come back, new requests start while nobody waits, and every running one writes a
    token. Rows have `step`, `running`, blocks `held`, `slots` of them that are empty, and `preempted` so far.
    """
    memory, queue = answer(num_blocks, block_size, _nothing), deque(enumerate(load))
    left: dict[str, int] = {}  # tokens to write, of those that were admitted
    waiting: set[str] = set()
    rows: list[dict[str, int]] = []
    preempted = 0
    while queue or left:
        while waiting and (name := memory.resume()) is not None:
            waiting.remove(name)
        while queue and not waiting and len(left) < clients:
            number, (prompt, tokens) = queue[0]
            if not memory.allocate(str(number), prompt):
                break
            queue.popleft()
            left[str(number)] = tokens
        for name in list(left):
            if name in waiting:
                continue
            lost = memory.append(name)
            waiting.update(lost)
            preempted += len(lost)
            left[name] -= 1
        rows.append(
            {
                "step": len(rows),
                "running": len(left) - len(waiting),
                "held": num_blocks - memory.num_free,
                "slots": memory.empty_slots,
                "preempted": preempted,
            }
        )
        for name in [name for name, tokens in left.items() if not tokens]:
            memory.free(name)
            waiting.discard(name)
            del left[name]
    return rows


class _Watched:
    """The learner's memory with real content in it: every token is written where the table says, and read back.

    What is in a slot follows from the table alone, so a block that two sequences write into shows at once.
    """

    def __init__(self, answer: Answer, num_blocks: int, size: int) -> None:
        stored: dict[tuple[int, int], int] = {}

        def copied(source: int, target: int) -> None:
            for slot in range(size):
                if (source, slot) in stored:
                    stored[target, slot] = stored[source, slot]

        self.memory = call(answer, num_blocks, size, copied)
        self.num_blocks, self.size = num_blocks, size
        self._stored = stored
        self._serial = count()
        self.running: dict[str, list[int]] = {}
        self.waiting: dict[str, int] = {}

    def allocate(self, name: str, tokens: int) -> bool:
        ok = call(self.memory.allocate, name, tokens)
        if ok:
            self._compute(name, tokens)
        return bool(ok)

    def append(self, name: str) -> list[str]:
        lost = call(self.memory.append, name)
        for victim in lost:
            self.waiting[victim] = len(self.running.pop(victim)) + (victim == name)
        if name in self.running:
            self.running[name].append(next(self._serial))
            self._write(name, len(self.running[name]) - 1)
        return list(lost)

    def fork(self, name: str, twin: str) -> None:
        call(self.memory.fork, name, twin)
        self.running[twin] = list(self.running[name])

    def free(self, name: str) -> None:
        call(self.memory.free, name)
        self.running.pop(name, None)
        self.waiting.pop(name, None)

    def resume(self) -> str | None:
        name: str | None = call(self.memory.resume)
        if name is not None:
            self._compute(name, self.waiting.pop(name))
        return name

    def held(self) -> int:
        """The blocks that must be held: two sequences share one as long as everything in it is the same."""
        size = self.size
        return len({tuple(t[at : at + size]) for t in self.running.values() for at in range(0, len(t), size)})

    def outcomes(self, after: str) -> Iterator[Outcome]:
        """What must be true at any time."""
        size = self.size
        for name, tokens in self.running.items():
            table = call(self.memory.table, name)
            yield equals(f"how many blocks {name!r} has after {after}", len(table), -(-len(tokens) // size))
            read = [self._stored.get((table[at // size], at % size)) for at in range(len(tokens))]
            yield holds(
                "the tokens are still there when they are read through the table",
                read == tokens,
                given=f"{name!r} after {after}",
                expected=f"{tokens} (numbered as they were written)",
                actual=read,
                why="None is a slot that nobody wrote; another number was written by somebody else.",
            )
        yield equals(f"num_free after {after}", self.memory.num_free, self.num_blocks - self.held())

    def _compute(self, name: str, tokens: int) -> None:
        self.running[name] = [next(self._serial) for _ in range(tokens)]
        for at in range(tokens):
            self._write(name, at)

    def _write(self, name: str, at: int) -> None:
        self._stored[call(self.memory.table, name)[at // self.size], at % self.size] = self.running[name][at]


def _nothing(_: int, __: int) -> None:
    """A copy of no content."""


def _check_allocate(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    memory = call(answer, 5, 4, _nothing)
    yield equals("num_free at first", memory.num_free, 5)
    yield agree(memory.allocate, "a", 9, expected=True, why="9 tokens take 3 blocks of 4, and 5 are free.")
    yield equals("num_free", memory.num_free, 2)
    yield equals("different blocks in the table", len(set(call(memory.table, "a"))), 3)
    yield agree(memory.allocate, "b", 12, expected=False, why="2 blocks are free.")
    yield equals("num_free after a sequence found no room", memory.num_free, 2)
    yield agree(memory.allocate, "b", 8, expected=True, why="It fits exactly.")
    yield equals("blocks that both have", len(set(call(memory.table, "a")) & set(call(memory.table, "b"))), 0)
    call(memory.free, "a")
    yield equals("num_free after a ended", memory.num_free, 3)
    for _ in range(6):
        size, blocks = rng.choice((1, 2, 4, 16)), rng.randrange(4, 40)
        watched, names = _Watched(answer, blocks, size), []
        for number in range(15):
            tokens = rng.randrange(1, 6 * size)
            room = blocks - watched.held() >= -(-tokens // size)
            yield equals(f"whether {tokens} tokens found room", watched.allocate(str(number), tokens), room)
            names += [str(number)] if room else []
            if names and rng.random() < 0.4:
                watched.free(names.pop(rng.randrange(len(names))))
            yield from watched.outcomes(f"{number + 1} sequences")


def _check_append(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    memory = call(answer, 5, 4, _nothing)
    call(memory.allocate, "a", 3)
    yield agree(memory.append, "a", expected=[], why="Nobody has to give way.")
    yield equals("num_free", memory.num_free, 4, why="The fourth token fits into the block.")
    call(memory.append, "a")
    yield equals("num_free", memory.num_free, 3, why="The fifth needs another one.")
    for _ in range(4):
        size = rng.choice((1, 2, 4))
        watched = _Watched(answer, 60, size)
        for name in "abc":
            watched.allocate(name, rng.randrange(1, 3 * size + 1))
        for step in range(20):
            watched.append(rng.choice("abc"))
            yield from watched.outcomes(f"{step + 1} tokens")


def _check_waste(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    memory = call(answer, 5, 4, _nothing)
    yield equals("empty_slots at first", memory.empty_slots, 0, why="Free blocks are not counted.")
    call(memory.allocate, "a", 9)
    yield equals("empty_slots with 9 tokens in 3 blocks of 4", memory.empty_slots, 3)
    for _ in range(6):
        size, lengths = rng.choice((1, 4, 16)), [rng.randrange(1, 60) for _ in range(5)]
        memory = call(answer, 400, size, _nothing)
        for number, tokens in enumerate(lengths):
            call(memory.allocate, str(number), tokens)
        for _ in range(6):
            number = rng.randrange(5)
            call(memory.append, str(number))
            lengths[number] += 1
            expected = sum(-tokens % size for tokens in lengths)
            yield equals(f"empty_slots of {lengths} tokens in blocks of {size}", memory.empty_slots, expected)


def _check_fork(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    copies: list[tuple[int, int]] = []

    def noted(source: int, target: int) -> None:
        copies.append((source, target))

    memory = call(answer, 9, 4, noted)
    call(memory.allocate, "a", 10)
    call(memory.fork, "a", "b")
    yield equals("num_free after a fork of 3 blocks", memory.num_free, 6, why="A fork takes no block.")
    yield equals("empty_slots after it", memory.empty_slots, 2, why="The block that both hold is counted once.")
    yield equals("copies made by it", len(copies), 0, why="Nothing is copied before somebody writes.")
    last = call(memory.table, "a")[-1]
    call(memory.append, "b")
    yield equals("num_free after b wrote", memory.num_free, 5, why="b writes into a copy of the last block.")
    yield equals("copies, as (source, target)", copies, [(last, call(memory.table, "b")[-1])])
    yield equals("a's last block", call(memory.table, "a")[-1], last)
    call(memory.append, "a")
    yield equals("copies after a wrote as well", len(copies), 1, why="a is alone in its block by now.")
    yield equals("num_free after it", memory.num_free, 5)
    call(memory.free, "a")
    yield equals("num_free after a ended", memory.num_free, 6, why="b still holds the two full blocks.")
    for _ in range(5):
        size = rng.choice((1, 2, 4))
        watched = _Watched(answer, 400, size)
        watched.allocate("0", rng.randrange(1, 4 * size))
        for step in range(1, 26):
            name = rng.choice(list(watched.running))
            if rng.random() < 0.3:
                watched.fork(name, str(step))
            elif rng.random() < 0.2 and len(watched.running) > 1:
                watched.free(name)
            else:
                watched.append(name)
            yield from watched.outcomes(f"{step} steps")


def _check_preempt(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    memory = call(answer, 3, 2, _nothing)
    for name in "abc":
        call(memory.allocate, name, 2)
    yield agree(memory.append, "a", expected=["c"], why="No block is free: the sequence that was admitted last gives way.")
    yield agree(
        memory.append, "b", expected=["b"], why="b is the newest by now. It gives way itself, and waits with its token."
    )
    yield equals("num_free", memory.num_free, 1)
    yield agree(
        memory.resume, expected=None, why="b was preempted last, so it is first. Its 3 tokens need 2 blocks; 1 is free."
    )
    call(memory.free, "a")
    yield agree(memory.resume, expected="b")
    yield equals("num_free after b came back", memory.num_free, 1, why="3 tokens in 2 blocks.")
    yield agree(memory.resume, expected="c")
    yield agree(memory.resume, expected=None, why="Nobody waits.")
    yield agree(memory.append, "b", expected=[], why="Its fourth token fits into the second block.")
    yield agree(memory.append, "b", expected=["c"], why="c came back after b, so it is the newest.")
    call(memory.free, "c")
    yield agree(memory.resume, expected=None, why="c ended while it waited.")
    memory = call(answer, 2, 4, _nothing)
    call(memory.allocate, "a", 6)
    call(memory.fork, "a", "b")
    yield agree(
        memory.append,
        "a",
        expected=["b"],
        why="a needs a copy, and no block is free. Once b is gone, a is alone in its block.",
    )
    yield equals("num_free then", memory.num_free, 0)
    yield agree(memory.append, "a", expected=[], why="There is a slot left.")
    memory = call(answer, 4, 4, _nothing)
    call(memory.allocate, "a", 6)
    call(memory.fork, "a", "b")
    call(memory.append, "b")
    call(memory.allocate, "c", 4)
    yield agree(
        memory.append, "a", expected=[], why="It is alone in its last block, which has a slot left: it needs no block."
    )
    sizes = rng.choice((2, 4)), rng.randrange(6, 12)
    watched = _Watched(answer, sizes[1], sizes[0])
    for step in range(40):
        if rng.random() < 0.3:
            watched.allocate(str(step), rng.randrange(1, 3 * sizes[0]))
        elif watched.running:
            watched.append(rng.choice(list(watched.running)))
        yield from watched.outcomes(f"{step + 1} steps")
        if len(watched.running) == 1 and not watched.memory.num_free:
            watched.free(next(iter(watched.running)))


def _check_traffic(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    for forks in (False, True, False, True):
        size, blocks = rng.choice((2, 4)), rng.randrange(12, 24)
        watched, lab = _Watched(answer, blocks, size), LabMemory(blocks, size, _nothing)
        for step in range(50):
            names, what, after = list(watched.running), rng.random(), f"{step + 1} steps in {blocks} blocks of {size}"
            if what < 0.2 or not names:
                tokens = rng.randrange(1, 4 * size)
                found = watched.allocate(str(step), tokens)
                if not forks:
                    room = lab.allocate(str(step), tokens)
                    yield equals(f"whether {tokens} tokens find room after {after}", found, room)
            elif what < 0.3:
                done = rng.choice(names + list(watched.waiting))
                watched.free(done)
                if not forks:
                    lab.free(done)
            elif what < 0.4:
                back = watched.resume()
                if not forks:
                    yield equals(f"who resumes after {after}", back, lab.resume())
            elif what < 0.5 and forks:
                watched.fork(rng.choice(names), str(step))
            else:
                name = rng.choice(names)
                if len(watched.running[name]) >= blocks * size:
                    continue
                lost = watched.append(name)
                if not forks:
                    yield equals(f"who was preempted by {name!r} after {after}", lost, lab.append(name))
            yield from watched.outcomes(after)
            if not forks:
                yield equals(f"num_free after {after}", watched.memory.num_free, lab.num_free)
                yield equals(f"empty_slots after {after}", watched.memory.empty_slots, lab.empty_slots)


class _AlwaysANewBlock(PagedMemory):
    """Near miss: asks for the next block when the last one is just full."""

    def allocate(self, name: str, tokens: int) -> bool:
        if tokens // self.block_size + 1 > len(self._free):
            return False
        self._tokens[name] = tokens
        self._tables[name] = [self._take() for _ in range(tokens // self.block_size + 1)]
        return True


class _WritesIntoBoth(PagedMemory):
    """Near miss: writes into a block that others hold as well."""

    def append(self, name: str) -> list[str]:
        table = self._tables[name]
        users = self._users[table[-1]]
        self._users[table[-1]] = 1
        preempted = super().append(name)
        self._users[table[-1]] = users if self._tokens[name] % self.block_size != 1 else 1
        return preempted


class _CopiesAtOnce(PagedMemory):
    """Near miss: copies all blocks when a sequence forks."""

    def fork(self, name: str, twin: str) -> None:
        if self.allocate(twin, self._tokens[name]):
            for source, target in zip(self._tables[name], self._tables[twin], strict=True):
                self.copy(source, target)


class _FreesShared(PagedMemory):
    """Near miss: gives back blocks that others still hold."""

    def _give_back(self, name: str) -> None:
        for block in self._tables[name]:
            self._users[block] = 1
        super()._give_back(name)


class _ForgetsToCopy(PagedMemory):
    """Near miss: takes a block of its own to write into, but leaves it empty."""

    def append(self, name: str) -> list[str]:
        copy, self.copy = self.copy, _nothing
        preempted = super().append(name)
        self.copy = copy
        return preempted


class _OldestGivesWay(PagedMemory):
    """Near miss: preempts the sequence that was admitted first."""

    def _preempt(self) -> str:
        name = next(iter(self._tables))
        self._give_back(name)
        self._waiting.append(name)
        return name


class _FirstResumesFirst(PagedMemory):
    """Near miss: those who wait come back in the order in which they were preempted."""

    def _preempt(self) -> str:
        name = super()._preempt()
        self._waiting.insert(0, self._waiting.pop())
        return name


class _SharedCountedTwice(PagedMemory):
    """Near miss: counts the empty slots of a shared block for each of its holders."""

    @property
    def empty_slots(self) -> int:
        return sum(-self._tokens[name] % self.block_size for name in self._tables)


BUILD = Exercise(
    id="08.5",
    title="Paged memory",
    minutes=50,
    difficulty=3,
    answer="PagedMemory",
    reference=PagedMemory,
    stages=(
        Stage(
            "allocate and free, in whole blocks",
            _check_allocate,
            (
                "Keep a list of free blocks, and for each sequence its tokens and its table of blocks.",
                "⌈tokens / block⌉ is `-(-tokens // block)`. Look whether there are enough before you take any.",
            ),
        ),
        Stage(
            "append a token",
            _check_append,
            ("A new block is needed when the last one is full: when the tokens so far divide by the block size.",),
        ),
        Stage(
            "count the empty slots",
            _check_waste,
            ("Only the last block of a sequence can have empty slots.",),
        ),
        Stage(
            "fork, and copy on write",
            _check_fork,
            (
                "Count how many sequences hold each block. A fork adds one to each; a block is free again at 0.",
                "On append: if the last block is not full and others hold it, take a new one, `copy` into it, and put it in "
                "its place in this table alone. Who is alone writes in place.",
                "For the empty slots go through blocks, not through sequences: a shared one counts once.",
            ),
        ),
        Stage(
            "no block left: preempt and resume",
            _check_preempt,
            (
                "A dict keeps the order in which its keys came: `next(reversed(tables))` is the newest sequence.",
                "Preempt until a block is free, or none is needed any more, or the writer itself is gone.",
                "Who waits keeps its number of tokens, the new one included.",
            ),
        ),
        Stage(
            "any traffic: equal to the lab's allocator",
            _check_traffic,
            ("Write down all tables after each step of the example that fails, and look for the first that is wrong.",),
        ),
    ),
    wrong=(
        _AlwaysANewBlock,
        _WritesIntoBoth,
        _CopiesAtOnce,
        _FreesShared,
        _ForgetsToCopy,
        _OldestGivesWay,
        _FirstResumesFirst,
        _SharedCountedTwice,
    ),
    equivalent={
        **{
            f"line 8: [0] -> [{other}]": "a block's count is set when it is taken, and not read before"
            for other in ("1", "-1")
        },
        "line 45: self._tokens[name] % self.block_size == 0 -> self._tokens[name] % self.block_size <= 0": "a remainder is "
        "never below 0",
        "line 69: del self._tokens[name] -> pass": "the number of tokens of a sequence that ended is not read again",
    },
)
