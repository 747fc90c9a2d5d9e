"""Which of the chunks that a search found stay in the prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labkit.embeddings import Embedder
from labkit.request import InvalidRequest, InvalidValue, Message, Request, clock, is_whole
from labkit.shrink.count import lab_tokens
from labkit.shrink.cut import Cut
from labkit.shrink.packing import knapsack
from labkit.shrink.parts import outside, overlaps, without_harm
from labkit.shrink.pick import Nearest, fixed, greedy
from labkit.shrink.protect import MARKED, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

_OPEN = re.compile(r"<chunk(\s[^<>]*)?>")
_CLOSE = "</chunk>"
_SPACE = re.compile(r"\s*")
_ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk in a prompt: characters `start` to `end` of message number `message`, its marks included.

    `text` is what stands between the marks; `id` and `score` are those of its mark, "" and None where it has none.
    """

    message: int
    start: int
    end: int
    text: str
    id: str = ""
    score: float | None = None


Value = Callable[[str, Sequence[Passage]], Sequence[float]]
"""From the question and all chunks, what each chunk is worth; 0 or less is worth nothing."""


def by_score(_: str, chunks: Sequence[Passage]) -> list[float]:
    """The score that the search wrote into each chunk's mark. Raises `InvalidRequest` for a chunk without one."""
    scores = [chunk.score for chunk in chunks if chunk.score is not None]
    if len(scores) < len(chunks):
        at = next(n for n, chunk in enumerate(chunks) if chunk.score is None)
        raise InvalidRequest(
            f'chunk {at} {chunks[at].id!r} has no score; write <chunk score="0.83">, or value them otherwise'
        )
    return scores


@dataclass(frozen=True)
class ByNearness:
    """The similarity of a chunk to the question: the cosine of their vectors from `embedder`, −1 to 1."""

    embedder: Embedder
    _near: Nearest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_near", Nearest(self.embedder))

    def __call__(self, question: str, chunks: Sequence[Passage]) -> list[float]:
        """One cosine a chunk."""
        return [float(each) for each in self._near.worths(question, [chunk.text for chunk in chunks])(())]


@dataclass(frozen=True)
class Chunks(Shrinker):
    """Keep chunks of at most `tokens` tokens in all: those between `<chunk>` and `</chunk>`, wherever they stand.

    A mark may hold `id="…"` and `score="…"`. Without `value`, chunks are kept in their order, each that still fits. With
    `value` (`by_score`, `ByNearness(embedder)` or a function of your own) those with the greatest total value are kept,
    by an exact 0/1 knapsack: a long chunk has to be worth more than the short ones that it keeps out. Kept chunks keep their
    order. Tokens are counted chunk by chunk, marks included, by `count`.

    A chunk with protected text stays. The default protects marked text only: a chunk is chosen by its worth, and the numbers
    of one that does not bear on the question are no facts of it. Raises `InvalidValue` for settings that cannot work, and
    `InvalidRequest` where the protected chunks alone need more tokens, which it tells.
    """

    tokens: int
    value: Value | None = None
    count: Callable[[str], int] = lab_tokens
    protect: Protect = MARKED

    def __post_init__(self) -> None:
        if not is_whole(self.tokens, 0):
            raise InvalidValue(f"tokens is {self.tokens!r:.80}; use a whole number from 0")
        if self.value is not None and not callable(self.value):
            raise InvalidValue(
                f"value is {self.value!r:.80}; give a function from a question and chunks to numbers, or None"
            )
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a text to its number of tokens")

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt with fewer chunks."""
        messages = request.messages
        self.protect.check(messages)
        return await clock.off_loop(lambda: self._shrunk(messages))

    def _shrunk(self, messages: tuple[Message, ...]) -> Shrunk:
        chunks = find_chunks(messages)
        texts = [messages[chunk.message].content[chunk.start : chunk.end] for chunk in chunks]
        sizes = [self.count(text) for text in texts]
        if sum(sizes) <= self.tokens:
            return Shrunk.of(messages)
        spans = [self.protect.spans(message.content) for message in messages]
        stay = {n for n, each in enumerate(chunks) if overlaps(spans[each.message], each.start, each.end)}
        worth = None if self.value is None else self._worth(messages, chunks)
        return without_harm(messages, self.protect, stay, lambda stay: self._cuts(messages, chunks, sizes, worth, stay))

    def _cuts(
        self,
        messages: Sequence[Message],
        chunks: Sequence[Passage],
        sizes: Sequence[int],
        worth: Sequence[float] | None,
        stay: set[int],
    ) -> dict[int, Cut]:
        """The cut of each chunk that goes, where those of `stay` must not."""
        needed = sum(sizes[n] for n in stay)
        if needed > self.tokens:
            raise InvalidRequest(
                f"the budget is {self.tokens} tokens, and the chunks with protected text need {needed}; allow that, or "
                "protect less"
            )
        others = [n for n in range(len(chunks)) if n not in stay]
        own, room = [sizes[n] for n in others], self.tokens - needed
        if worth is None:
            taken = greedy(fixed([-float(n) for n in others]), own, room=room)
            whys = [f"{size} tokens, no room behind the chunks before it" for size in own]
        else:
            taken = knapsack([worth[n] for n in others], own, room)
            whys = [f"{sizes[n]} tokens, worth {worth[n]:.3g}; others are worth more together" for n in others]
        cuts = {}
        for i, n in enumerate(others):
            if i not in taken:
                each = chunks[n]
                end = _SPACE.match(messages[each.message].content, each.end).end()  # type: ignore[union-attr]
                name = f"chunk {n}{f' ({each.id})' if each.id else ''}"
                cuts[n] = Cut(each.message, each.start, end, by="chunks", why=f"{name}: {whys[i]}")
        return cuts

    def _worth(self, messages: Sequence[Message], chunks: Sequence[Passage]) -> list[float]:
        last = next((n for n in range(len(messages) - 1, -1, -1) if messages[n].role == "user"), None)
        spans = [(chunk.start, chunk.end) for chunk in chunks if chunk.message == last]
        question = "" if last is None else outside(messages[last].content, spans)
        worth = [float(each) for each in self.value(question, chunks)] if self.value else []
        if len(worth) != len(chunks) or not all(map(math.isfinite, worth)):
            raise InvalidValue(f"value gave {worth!r:.80} for {len(chunks)} chunks; it must give a finite number for each")
        return worth


def find_chunks(messages: Sequence[Message]) -> list[Passage]:
    """The chunks of a prompt in order. A mark that is not closed begins none."""
    found: list[Passage] = []
    for number, message in enumerate(messages):
        text, at = message.content, 0
        while opened := _OPEN.search(text, at):
            close = text.find(_CLOSE, opened.end())
            if close < 0:
                break
            at = close + len(_CLOSE)
            named = {name: a or b or c for name, a, b, c in _ATTRIBUTE.findall(opened[1] or "")}
            score = _number(named.get("score", ""))
            found.append(Passage(number, opened.start(), at, text[opened.end() : close], named.get("id", ""), score))
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
