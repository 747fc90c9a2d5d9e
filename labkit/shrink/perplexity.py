"""Dropping the words that a language model expects: what can be guessed tells the reader little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.request import InvalidRequest, InvalidValue, Message
from labkit.shrink.dropping import Prompt, WordDropper
from labkit.shrink.scorers import Scored, Scorer

BETWEEN = "\n\n"
"""What stands between two messages in the text that the scorer reads."""


@dataclass(frozen=True)
class ByPerplexity(WordDropper):
    """Drops the most predictable words: a word is worth its information, in nats a token of the scorer's.

    Information is −ln p(token | all before it), averaged over the word's tokens: the prompt then keeps the most information
    that its tokens can hold (Selective Context, Li et al. 2023, arXiv 2304.12102; LLMLingua, arXiv 2310.05736).

    With `question`, the last message of role "user" stays as it is, and a word before it is worth what the question adds to
    its probability: ln p(token | question, all before it) − ln p(token | all before it). That is the contrastive perplexity
    of LongLLMLingua (Jiang et al. 2023, arXiv 2310.06839, equation 3). The scorer then reads the text twice.
    """

    scorer: Scorer
    question: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.scorer, "score"):
            raise InvalidValue(f"scorer is {self.scorer!r:.80}; give a LiveScorer, a TransformersScorer or one of your own")

    def prompt(self, messages: tuple[Message, ...]) -> Prompt:
        """As `WordDropper.prompt`, without the question where it stays. Raises `InvalidRequest` where there is none."""
        found = super().prompt(messages)
        if self.question:
            found.words.pop(_question(messages), None)
        return found

    async def judge(self, prompt: Prompt) -> list[float]:
        """Nats a token of each word, or what the question adds to them."""
        if not self.question:
            return _worths(prompt, range(len(prompt.messages)), await self._read(prompt.messages))
        asked = _question(prompt.messages)
        order = [n for n in range(len(prompt.messages)) if n != asked]
        rest = [prompt.messages[n] for n in order]
        alone = _worths(prompt, order, await self._read(rest))
        told = _worths(prompt, order, await self._read(rest, prompt.messages[asked].content + BETWEEN))
        # The very first word has nothing before it when it is read alone: then it is as informative as can be.
        return [math.inf if math.isinf(a) else a - t for a, t in zip(alone, told, strict=True)]

    async def _read(self, messages: Sequence[Message], before: str = "") -> Scored:
        return await self.scorer.score(BETWEEN.join(m.content for m in messages), before)

    def why(self, worths: Sequence[float]) -> str:
        """How probable the words were, or how much likelier the question made them."""
        mean = sum(worths) / len(worths)
        if self.question:
            return f"the question makes it {math.exp(mean):.2f} times as likely, a token"
        return f"expected: probability {math.exp(-mean):.2f} a token"


def _question(messages: Sequence[Message]) -> int:
    for number in range(len(messages) - 1, -1, -1):
        if messages[number].role == "user":
            return number
    raise InvalidRequest("ByPerplexity(question=True) needs a message of role user, which is the question; there is none")


def _worths(prompt: Prompt, order: Sequence[int], scored: Scored) -> list[float]:
    """The mean −logprob of the tokens of each free word; `scored` are the messages number `order`, joined by `BETWEEN`.

    Blanks at a token's beginning do not make it a part of the word before. A word that no token covers (the scorer's
    tokenizer dropped it) is worth nothing.
    """
    offsets, at = {}, 0
    for n in order:
        offsets[n] = at
        at += len(prompt.messages[n].content) + len(BETWEEN)
    text = BETWEEN.join(prompt.messages[n].content for n in order)
    tokens = []
    for (start, end), logprob in zip(scored.spans, scored.logprobs, strict=True):
        while start < end and text[start].isspace():
            start += 1
        if start < end:
            tokens.append((start, end, -logprob))
    found, first = [], 0
    for n in sorted(order):
        for word in prompt.words.get(n, ()):
            start, end = word.start + offsets[n], word.end + offsets[n]
            while first < len(tokens) and tokens[first][1] <= start:
                first += 1
            if word.fixed:
                continue
            inside, i = [], first
            while i < len(tokens) and tokens[i][0] < end:
                inside.append(tokens[i][2])
                i += 1
            found.append(sum(inside) / len(inside) if inside else 0.0)
    return found
