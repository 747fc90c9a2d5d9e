"""Query-aware extraction: the sentences of a text that bear on the question stay."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from labkit.embeddings import Embedder
from labkit.request import InvalidRequest, InvalidValue, Message, Request, clock, is_whole
from labkit.shrink.count import lab_tokens
from labkit.shrink.cut import Cut
from labkit.shrink.parts import outside, overlaps, without_harm
from labkit.shrink.pick import Nearest, fixed, greedy
from labkit.shrink.protect import MARKED, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk
from labkit.shrink.splitting import sentences

_SPACE = re.compile(r"\s*")
_TAG = re.compile(r"<([\w.-]+)>")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a prompt: characters `start` to `end` of message number `message`, and what it is worth.

    `similarity` is the cosine of its vector and that of the question, −1 to 1; `stays` says that it holds protected text.
    """

    message: int
    start: int
    end: int
    similarity: float
    stays: bool


@dataclass(frozen=True)
class Sentences(Shrinker):
    """Of the text between `begin` and `end`, keep the sentences that are most similar to the question, in their order.

    `tokens`: the most similar ones are kept, each that still fits into so many tokens, counted by `count` one by one.
    `threshold`: those whose similarity is at least this are kept. Give one of the two, or both. `begin` is an exact text, or
    a tag such as "<context>", which may have attributes in the prompt; an empty `end` is the end of the message. All
    messages but the assistant's are searched; the question is what the last user message holds beside such text. A prompt
    without either is left as it is.

    A sentence with protected text stays. The default protects marked text only, since whole sentences go, chosen by the
    question. Similarity knows what a sentence is about, not what follows from it: a rule that bears on every question
    and names nothing of this one ("members get ten more days") is soon dropped, so mark such rules with `<keep>`.

    `embedder` is `labkit.embeddings.embedder()`, or another that reads the prompt's language. It encodes a sentence once, so
    rules that stand in every prompt cost time in the first one. Raises `InvalidValue` for settings that cannot work, and
    `InvalidRequest` where protected sentences alone need more tokens, which it tells.
    """

    embedder: Embedder
    tokens: int | None = None
    threshold: float | None = None
    begin: str = "<context>"
    end: str = "</context>"
    count: Callable[[str], int] = lab_tokens
    protect: Protect = MARKED
    _near: Nearest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_near", Nearest(self.embedder))
        if self.tokens is None and self.threshold is None:
            raise InvalidValue("neither tokens nor threshold is given; say how much may stay, or how similar it must be")
        if self.tokens is not None and not is_whole(self.tokens, 0):
            raise InvalidValue(f"tokens is {self.tokens!r:.80}; use a whole number from 0")
        if self.threshold is not None and not (isinstance(self.threshold, int | float) and -1 <= self.threshold <= 1):
            raise InvalidValue(f"threshold is {self.threshold!r:.80}; use a similarity from -1 to 1")
        if not isinstance(self.begin, str) or not self.begin or not isinstance(self.end, str):
            raise InvalidValue(f"begin is {self.begin!r:.40} and end {self.end!r:.40}; give texts, begin not empty")
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a text to its number of tokens")

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt with fewer sentences."""
        messages = request.messages
        self.protect.check(messages)
        return await clock.off_loop(lambda: self._shrunk(messages))

    def rated(self, messages: Sequence[Message]) -> list[Sentence]:
        """The sentences between the marks, each with its similarity to the question; none where there is no question."""
        parts = {n: self._parts(m.content) for n, m in enumerate(messages) if m.role != "assistant"}
        last = next((n for n in range(len(messages) - 1, -1, -1) if messages[n].role == "user"), None)
        question = "" if last is None else outside(messages[last].content, parts[last])
        found = [
            (n, start + a, start + b)
            for n, spans in parts.items()
            for start, end in spans
            for a, b in sentences(messages[n].content[start:end])
        ]
        if not found or not question:
            return []
        texts = [messages[n].content[a:b].strip() for n, a, b in found]
        near = self._near.worths(question, texts)(())
        kept = {n: self.protect.spans(messages[n].content) for n in parts}
        return [Sentence(n, a, b, float(s), overlaps(kept[n], a, b)) for (n, a, b), s in zip(found, near, strict=True)]

    def _parts(self, text: str) -> list[tuple[int, int]]:
        tag = _TAG.fullmatch(self.begin)
        opening = re.compile(rf"<{re.escape(tag[1])}(?:\s[^<>]*)?>" if tag else re.escape(self.begin))
        spans, at = [], 0
        while opened := opening.search(text, at):
            start = _SPACE.match(text, opened.end()).end()  # type: ignore[union-attr]
            at = text.find(self.end, start) if self.end else len(text)
            if at < 0:
                break
            if start < at:
                spans.append((start, at))
        return spans

    def _shrunk(self, messages: tuple[Message, ...]) -> Shrunk:
        rated = self.rated(messages)
        texts = [messages[each.message].content[each.start : each.end] for each in rated]
        sizes = [] if self.tokens is None else [self.count(text) for text in texts]
        stay = {n for n, each in enumerate(rated) if each.stays}
        return without_harm(messages, self.protect, stay, lambda stay: self._cuts(rated, sizes, stay))

    def _cuts(self, rated: Sequence[Sentence], sizes: list[int], stay: set[int]) -> dict[int, Cut]:
        """The cut of each sentence that goes, where those of `stay` must not."""
        least = -math.inf if self.threshold is None else self.threshold
        near = [n for n, each in enumerate(rated) if n not in stay and each.similarity >= least]
        if self.tokens is not None:
            needed = sum(sizes[n] for n in stay)
            if needed > self.tokens:
                raise InvalidRequest(
                    f"the budget is {self.tokens} tokens, and the sentences with protected text need {needed}; allow "
                    "that, or protect less"
                )
            worth = fixed([rated[n].similarity for n in near])
            near = [near[i] for i in greedy(worth, [sizes[n] for n in near], room=self.tokens - needed)]
        kept = stay.union(near)
        cuts = {}
        for n, each in enumerate(rated):
            if n not in kept:
                reason = "below the threshold" if each.similarity < least else f"no room in {self.tokens} tokens"
                why = f"similarity {each.similarity:.2f} to the question, {reason}"
                cuts[n] = Cut(each.message, each.start, each.end, by="sentences", why=why)
        return cuts
