"""The long build of chapter 03: a prefix cache, as an engine keeps it."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from hashlib import sha256
from itertools import count

from labkit.engines.modelled import BlockManager
from labkit.engines.modelled import Sequence as EngineSequence
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, equals, holds


class PromptCache:
    """A prefix cache of `num_blocks` blocks of `block_size` tokens, all free and empty at first."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._free = OrderedDict.fromkeys(range(num_blocks))  # the next one to be reused in front
        self._users = [0] * num_blocks  # how many running prompts hold the block
        self._key: list[Hashable] = [None] * num_blocks  # None while the block cannot be found
        self._holding: dict[Hashable, list[int]] = {}  # the blocks of each key, the one filled first in front
        self._tables: dict[str, list[int]] = {}

    @property
    def num_free(self) -> int:
        """Blocks that no running prompt holds."""
        return len(self._free)

    def keys(self, tokens: Sequence[int], salt: str = "") -> list[Hashable]:
        """A key for each full block of `tokens`."""
        found: list[Hashable] = []
        before = sha256(salt.encode()).digest()
        for end in range(self.block_size, len(tokens) + 1, self.block_size):
            before = sha256(before + repr(list(tokens[end - self.block_size : end])).encode()).digest()
            found.append(before)
        return found

    def lookup(self, tokens: Sequence[int], salt: str = "") -> int:
        """How many tokens of a prompt the cache would serve now."""
        return len(self._found(tokens, salt)) * self.block_size

    def start(self, name: str, tokens: Sequence[int], salt: str = "") -> int | None:
        """Give a prompt its blocks; returns the tokens that were found, None without room."""
        found = self._found(tokens, salt)
        new = -(-len(tokens) // self.block_size) - len(found)
        if new + sum(not self._users[block] for block in found) > len(self._free):
            return None
        for block in found:
            self._free.pop(block, None)
            self._users[block] += 1
        table = found + [self._take() for _ in range(new)]
        for block, key in list(zip(table, self.keys(tokens, salt), strict=False))[len(found) :]:
            self._key[block] = key
            self._holding.setdefault(key, []).append(block)
        self._tables[name] = table
        return len(found) * self.block_size

    def finish(self, name: str) -> None:
        """Give a prompt's blocks back; what they hold can still be found."""
        for block in reversed(self._tables.pop(name)):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None
                if self._key[block] is None:
                    self._free.move_to_end(block, last=False)

    def _found(self, tokens: Sequence[int], salt: str) -> list[int]:
        """The blocks of the prompt's beginning that are there. Its last token is computed in any case."""
        found = []
        for key in self.keys(tokens[:-1], salt):
            if key not in self._holding:
                break
            found.append(self._holding[key][0])
        return found

    def _take(self) -> int:
        """The free block that goes first; from now on its old content is not found there."""
        block, _ = self._free.popitem(last=False)
        key = self._key[block]
        if key is not None:
            self._holding[key].remove(block)
            if not self._holding[key]:
                del self._holding[key]
            self._key[block] = None
        self._users[block] = 1
        return block


Answer = Callable[[int, int], PromptCache]


class _Peer:
    """The same calls on the lab's block manager, which foretells vLLM."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._blocks = BlockManager(num_blocks + 1, block_size)  # one of them is a placeholder
        self._running: dict[str, EngineSequence] = {}

    @property
    def num_free(self) -> int:
        return self._blocks.num_free

    def lookup(self, tokens: Sequence[int], salt: str = "") -> int:
        return len(self._blocks.cached_prefix(EngineSequence("", tokens, 1, salt=salt))) * self._blocks.block_size

    def start(self, name: str, tokens: Sequence[int], salt: str = "") -> int | None:
        sequence = EngineSequence(name, tokens, 1, salt=salt)
        found = self._blocks.cached_prefix(sequence)
        if not self._blocks.can_allocate(sequence, len(tokens), found):
            return None
        self._blocks.allocate(sequence, len(tokens), found)
        self._running[name] = sequence
        return len(found) * self._blocks.block_size

    def finish(self, name: str) -> None:
        self._blocks.free(self._running.pop(name))


def _fresh(numbers: Iterator[int], n: int) -> list[int]:
    return [next(numbers) for _ in range(n)]


def _check_keys(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    for length, full in ((0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (13, 3)):
        cache = call(answer, 10, 4)
        keys = call(cache.keys, list(range(length)))
        yield equals(
            f"how many keys {length} tokens have in blocks of 4", len(keys), full, why="Only full blocks have a key."
        )
    cache = call(answer, 10, 4)
    same = call(cache.keys, [7] * 12)
    yield equals(
        "how many different keys three blocks with the same tokens have",
        len(set(same)),
        3,
        why="A block is only what it is behind its own beginning: the key before it is part of its key.",
    )
    for _ in range(10):
        size = rng.choice((2, 4, 16))
        cache, other = call(answer, 10, size), call(answer, 10, size)
        one = [rng.randrange(50) for _ in range(6 * size)]
        at = rng.randrange(len(one))
        two = [*one[:at], one[at] + 1, *one[at + 1 :]]
        before, after = call(cache.keys, one), call(other.keys, two)
        yield equals(
            f"which of the keys of two prompts in blocks of {size} are equal, where only token {at} differs",
            [a == b for a, b in zip(before, after, strict=True)],
            [block < at // size for block in range(6)],
            why="Equal beginnings have equal keys, in every cache; nothing is equal from the first difference on.",
        )
        yield equals(
            "how many keys are equal under another salt",
            len(set(before) & set(call(cache.keys, one, f"tenant {at}"))),
            0,
            why="The salt goes into the first block's key, and so into all of them.",
        )


def _check_found(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    cache = call(answer, 20, 4)
    prompt = list(range(10))
    yield agree(cache.lookup, prompt, expected=0, why="The cache is empty.")
    yield agree(cache.start, "a", prompt, expected=0)
    yield agree(cache.lookup, prompt, expected=8, why="Two full blocks of 4; the third is not full.")
    yield agree(cache.lookup, prompt[:8], expected=4, why="The last token must be computed: not the whole prompt is served.")
    yield agree(cache.lookup, prompt[:9], expected=8, why="8 tokens are found, and the ninth is computed.")
    yield agree(cache.lookup, [99, *prompt], expected=0, why="Another beginning: nothing behind it is found.")
    yield agree(cache.lookup, prompt, "other", expected=0, why="Another salt.")
    yield agree(cache.lookup, [], expected=0)
    yield agree(cache.start, "b", [*prompt[:8], 50, 51], expected=8)
    yield agree(cache.lookup, prompt, expected=8, why="To look changes nothing.")
    for _ in range(6):
        size, numbers = rng.choice((2, 4, 8)), count(1)
        cache = call(answer, 1_000, size)
        seen: list[tuple[list[int], str]] = []
        for number in range(12):
            begun, salt = rng.choice(seen) if seen and rng.random() < 0.8 else ([], rng.choice(("", "s")))
            prompt = begun[: rng.randrange(len(begun) + 1)] + _fresh(numbers, rng.randrange(1, 4 * size))
            prompt = prompt[: len(prompt) // size * size] or prompt if rng.random() < 0.3 else prompt
            shared = max((_in_common(prompt, old) for old, theirs in seen if theirs == salt), default=0)
            # What is found of an old prompt was in one of its full blocks; all of them together are found.
            expected = min(shared, len(prompt) - 1) // size * size
            yield agree(cache.start, str(number), prompt, salt, expected=expected)
            seen.append((prompt, salt))


def _in_common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _free(cache: PromptCache, expected: int, why: str) -> Outcome:
    return equals("num_free", cache.num_free, expected, why=why)


def _check_counted(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    cache = call(answer, 6, 4)
    prompt = list(range(10))
    yield _free(cache, 6, "All blocks are free at first.")
    call(cache.start, "a", prompt)
    yield _free(cache, 3, "10 tokens hold 3 blocks of 4; the last one is not full.")
    call(cache.start, "b", [*prompt[:8], 50])
    yield _free(cache, 2, "Two blocks are shared, and one is new.")
    call(cache.finish, "a")
    yield _free(cache, 3, "b still holds the two that both shared.")
    yield agree(cache.lookup, prompt, expected=8, why="b holds them, so they are found.")
    call(cache.finish, "b")
    yield _free(cache, 6, "Nobody holds a block.")
    yield agree(cache.lookup, prompt, expected=8, why="A free block keeps what it holds until it is reused.")
    yield agree(cache.start, "c", prompt, expected=8)
    yield _free(cache, 3, "What is found is held again, and is free no longer.")
    for _ in range(4):
        size, numbers = rng.choice((2, 4)), count(1)
        cache, trunk = call(answer, 200, size), _fresh(numbers, 5 * size)
        lengths = [rng.randrange(0, 6) for _ in range(8)]
        for number, blocks in enumerate(lengths):
            call(cache.start, str(number), trunk[: blocks * size] + _fresh(numbers, 1))
        order = rng.sample(range(8), 8)
        for done in range(8):
            running = order[done:]
            held = max(lengths[number] for number in running) + len(running)
            yield _free(
                cache, 200 - held, f"Of the common beginning, the running prompts hold {held - len(running)} blocks."
            )
            call(cache.finish, str(order[done]))
        yield _free(cache, 200, "Nobody holds a block.")


def _check_room(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    cache = call(answer, 4, 4)
    yield agree(cache.start, "a", list(range(16)), expected=0, why="4 blocks of 4: it fits exactly.")
    yield agree(cache.start, "b", [50], expected=None, why="All blocks are held, and nobody's may be taken.")
    yield agree(cache.lookup, [*range(16), 9], expected=16, why="A prompt that did not start changed nothing.")
    call(cache.finish, "a")
    yield agree(cache.start, "b", [50], expected=0, why="One of the free blocks is reused, whatever it holds.")
    cache = call(answer, 3, 4)
    call(cache.start, "a", list(range(8)))
    call(cache.finish, "a")
    yield agree(
        cache.start,
        "c",
        [*range(8), 60, 61, 62, 63, 64],
        expected=None,
        why="It finds 2 of the 3 free blocks. They are not room for the 2 that it needs besides.",
    )
    yield _free(cache, 3, "A prompt that did not start holds nothing.")
    yield agree(cache.start, "c", [*range(8), 60], expected=8)
    yield agree(cache.start, "d", [*range(8), 61], expected=None, why="No block is left for its last token.")
    size = rng.choice((2, 4, 8))
    for blocks in range(1, 6):
        for tokens in (blocks * size, blocks * size + 1):
            cache = call(answer, blocks, size)
            yield agree(cache.start, "a", list(range(tokens)), expected=0 if tokens <= blocks * size else None)


def _check_oldest(answer: Answer, _: random.Random) -> Iterator[Outcome]:
    def come_and_go(cache: PromptCache, *prompts: list[int]) -> None:
        for prompt in prompts:
            call(cache.start, "once", prompt)
            call(cache.finish, "once")

    a, b, c = ([100 * n + i for i in range(9)] for n in (1, 2, 3))  # two full blocks of 4, and one token
    cache = call(answer, 7, 4)
    come_and_go(cache, a, b)
    yield agree(
        cache.lookup, a, expected=8, why="Blocks that were never used, and those that cannot be found, are reused first."
    )
    come_and_go(cache, c)
    yield agree(
        cache.lookup, a, expected=8, why="7 blocks: 2 of a, 2 of b, and 3 that hold nothing to be found: c takes those."
    )
    come_and_go(cache, [400, 401, 402, 403, 404, 405, 406, 407])
    yield agree(
        cache.lookup,
        a,
        expected=4,
        why="One of the two blocks is the one that cannot be found; the other is a's second: the least recently used prompt "
        "goes first, from its tail.",
    )
    yield agree(cache.lookup, b, expected=8, why="b came after a.")
    come_and_go(cache, a[:5])  # a's beginning is used once more
    yield agree(cache.lookup, b, expected=4, why="b was the least recently used then, so its tail went for a's one token.")
    come_and_go(cache, [500 + i for i in range(8)])
    yield agree(cache.lookup, b, expected=0, why="Now b's beginning went: it was the oldest that could be found.")
    yield agree(cache.lookup, a[:5], expected=4, why="a's beginning was used again after b, so it stays.")
    twice = call(answer, 6, 2)
    same, other = [1, 2, 3, 4], [7, 8, 9]
    call(twice.start, "x", same)
    call(twice.start, "y", same)
    call(twice.finish, "x")
    call(twice.start, "z", other)
    yield agree(twice.lookup, [*same, 5], expected=4, why="x and y each computed the last block: it is there twice.")
    call(twice.start, "v", [11, 12, 13, 14])
    yield agree(twice.lookup, [*same, 5], expected=4, why="x's block was reused; y's holds the same and is still there.")


def _check_traffic(answer: Answer, rng: random.Random) -> Iterator[Outcome]:
    for _ in range(8):
        size, blocks, numbers = rng.choice((2, 4, 8)), rng.randrange(8, 30), count(1)
        made, peer = call(answer, blocks, size), _Peer(blocks, size)
        shops = [(_fresh(numbers, rng.randrange(1, 4 * size)), rng.choice(("", "s"))) for _ in range(4)]
        past: list[tuple[list[int], str]] = list(shops)
        running: list[str] = []
        for number in range(40):
            if running and rng.random() < 0.45:
                name = running.pop(rng.randrange(len(running)))
                call(made.finish, name)
                peer.finish(name)
            else:
                begun, salt = rng.choice(past[-6:] + shops)
                prompt = begun + _fresh(numbers, rng.choice((0, size, rng.randrange(1, 3 * size))))
                prompt, name = prompt[: blocks * size], f"prompt {number}"
                expected = peer.start(name, prompt, salt)
                yield agree(made.start, name, prompt, salt, expected=expected)
                if expected is not None:
                    running.append(name)
                    past.append((prompt, salt))
            yield _free(made, peer.num_free, f"After {number + 1} events, in {blocks} blocks of {size}.")
            begun, salt = rng.choice(past)
            yield holds(
                "what a prompt would find is what the lab's block manager finds",
                call(made.lookup, begun, salt) == peer.lookup(begun, salt),
                given=f"{len(begun)} tokens, after {number + 1} events in {blocks} blocks of {size}",
                expected=peer.lookup(begun, salt),
                actual=call(made.lookup, begun, salt),
            )


class _NoChain(PromptCache):
    """Near miss: a block's key is its tokens alone, wherever they stand."""

    def keys(self, tokens: Sequence[int], salt: str = "") -> list[Hashable]:
        size = self.block_size
        return [(salt, *tokens[end - size : end]) for end in range(size, len(tokens) + 1, size)]


class _NoSalt(PromptCache):
    """Near miss: tenants find one another's blocks."""

    def keys(self, tokens: Sequence[int], salt: str = "") -> list[Hashable]:
        return super().keys(tokens, salt[:0])


class _WholePrompt(PromptCache):
    """Near miss: serves the last token as well, from which nothing follows then."""

    def _found(self, tokens: Sequence[int], salt: str) -> list[int]:
        return super()._found([*tokens, 0], salt)


class _ForgetsAtOnce(PromptCache):
    """Near miss: what nobody holds is not found any more."""

    def finish(self, name: str) -> None:
        super().finish(name)
        self._holding = {key: held for key, held in self._holding.items() if any(self._users[block] for block in held)}


class _BeginningFirst(PromptCache):
    """Near miss: of a prompt, the beginning is reused first."""

    def finish(self, name: str) -> None:
        self._tables[name].reverse()
        super().finish(name)


class _InOrderOfNumber(PromptCache):
    """Near miss: reuses the free block with the lowest number, whenever it was used."""

    def _take(self) -> int:
        self._free = OrderedDict.fromkeys(sorted(self._free))
        return super()._take()


class _PartialLast(PromptCache):
    """Near miss: a block that cannot be found waits for its turn like the others."""

    def finish(self, name: str) -> None:
        unknown = [block for block in self._tables[name] if self._key[block] is None]
        super().finish(name)
        for block in unknown:
            self._free.move_to_end(block)


class _CountsFoundAsRoom(PromptCache):
    """Near miss: blocks that are found, and free until then, count as room for the rest as well."""

    def start(self, name: str, tokens: Sequence[int], salt: str = "") -> int | None:
        if -(-len(tokens) // self.block_size) - len(self._found(tokens, salt)) > len(self._free):
            return None
        return super().start(name, tokens, salt) or 0


class _OneBlockAKey(PromptCache):
    """Near miss: knows one block for each key, so it forgets the other one that holds the same."""

    def start(self, name: str, tokens: Sequence[int], salt: str = "") -> int | None:
        found = super().start(name, tokens, salt)
        self._holding = {key: held[-1:] for key, held in self._holding.items()}
        return found

    def _take(self) -> int:
        self._holding = {key: held or [-1] for key, held in self._holding.items()}
        block = next(iter(self._free))
        key = self._key[block]
        if key is not None and block not in self._holding.get(key, ()):
            self._holding.pop(key, None)
            self._key[block] = None
        return super()._take()


BUILD = Exercise(
    id="03.5",
    title="The engine's prefix cache",
    minutes=60,
    difficulty=3,
    answer="PromptCache",
    reference=PromptCache,
    stages=(
        Stage(
            "keys: a chain over full blocks",
            _check_keys,
            (
                "Go through the tokens a full block at a time; what is left at the end has no key.",
                "`key = hash((key_before, tuple(block)))`, and before the first block stands the salt.",
            ),
        ),
        Stage(
            "a prompt that came before is found",
            _check_found,
            (
                "Keep for each block its key, and for each key its block. `start` takes blocks and files their keys.",
                "What is found is the leading run of keys that are there. Look among the keys of `tokens[:-1]`: the last "
                "token is computed in any case.",
            ),
        ),
        Stage(
            "blocks are shared, counted and given back",
            _check_counted,
            (
                "Count for each block how many running prompts hold it. It is free at 0, and only then.",
                "A free block keeps its key. When it is found, it leaves the free ones.",
            ),
        ),
        Stage(
            "no room: no change",
            _check_room,
            ("Count before you take anything: the new blocks, and those found that are free until now.",),
        ),
        Stage(
            "the least recently used goes first",
            _check_oldest,
            (
                "Keep the free blocks in an `OrderedDict`: take from the front, give back at the end.",
                "A block without a key cannot be found, so it goes to the front.",
                "Two running prompts may have computed the same block: keep a list of blocks for each key.",
            ),
        ),
        Stage(
            "any traffic: equal to the lab's block manager",
            _check_traffic,
            (
                "Write down the free blocks, in their order, after each event of the example that fails, and compare that "
                "with the rules above.",
            ),
        ),
    ),
    wrong=(
        _NoChain,
        _NoSalt,
        _WholePrompt,
        _ForgetsAtOnce,
        _BeginningFirst,
        _InOrderOfNumber,
        _PartialLast,
        _CountsFoundAsRoom,
        _OneBlockAKey,
    ),
    equivalent={
        **{
            f"line 7: [0] -> [{other}]": "a block's count is set when it is taken, and not read before"
            for other in ("1", "-1")
        },
        "line 22: tokens[end - self.block_size:end] -> tokens[:end]": "all tokens up to the block's end say the same as its "
        "own do with the key before it",
        "line 60: break -> continue": "a beginning is reused after what stands behind it, so behind a miss nothing is there",
    },
)
