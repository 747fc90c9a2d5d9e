"""Dropping words until a prompt has the length that was asked for. Who may judge the words is left open."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from labkit.request import InvalidRequest, InvalidValue, Message, Request
from labkit.shrink.count import lab_tokens
from labkit.shrink.cut import Cut
from labkit.shrink.harm import harmless
from labkit.shrink.protect import FACTS, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk
from labkit.shrink.wording import WordSpan, without, words

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of a request, and the words of those that may be shortened, by the message's number."""

    messages: tuple[Message, ...]
    words: dict[int, list[WordSpan]]

    @property
    def free(self) -> list[tuple[int, int]]:
        """The words that may go, in order: each as the number of its message and its own number there."""
        return [(number, i) for number, found in self.words.items() for i, word in enumerate(found) if not word.fixed]

    def text(self, number: int, i: int) -> str:
        """WordSpan `i` of message `number`."""
        word = self.words[number][i]
        return self.messages[number].content[word.start : word.end]


@dataclass(frozen=True, kw_only=True)
class WordDropper(Shrinker):
    """Drops words, those worth least first, until the prompt is as long as asked. Define `judge` and `why`.

    `rate` is the share of the prompt's tokens that stays, `tokens` their number: give one of the two. Tokens are those of
    the messages' texts by `count`; a chat template's marks come on top. Only messages of `roles` are shortened, never what
    `protect` keeps. The prompt then has at most the tokens asked for, and with one word less dropped it would have more.
    Where protection leaves more tokens than `rate` asks for, all other words go and each cut says so; where it leaves more
    than `tokens`, `shrink` raises `InvalidRequest`, which says how many are needed.
    """

    rate: float | None = None
    tokens: int | None = None
    roles: tuple[str, ...] = ("system", "user")
    protect: Protect = FACTS
    count: Callable[[str], int] = lab_tokens

    def __post_init__(self) -> None:
        name = type(self).__name__
        if (self.rate is None) == (self.tokens is None):
            raise InvalidValue(f"{name} needs rate or tokens, one of the two; rate={self.rate}, tokens={self.tokens}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise InvalidValue(f"rate is {self.rate}; it is the share of the tokens that stays, above 0 and up to 1")
        if self.tokens is not None and self.tokens < 1:
            raise InvalidValue(f"tokens is {self.tokens}; a prompt has at least 1")
        unknown = sorted(set(self.roles) - set(_ROLES))
        if not isinstance(self.roles, tuple) or unknown or not self.roles:
            raise InvalidValue(f"roles is {self.roles!r:.80}; give some of {', '.join(_ROLES)}, as a tuple")

    @abstractmethod
    async def judge(self, prompt: Prompt) -> Sequence[float]:
        """What each of `prompt.free` is worth; the lowest go first, equals in their order."""

    @abstractmethod
    def why(self, worths: Sequence[float]) -> str:
        """The reason for dropping neighbouring words that are worth this."""

    def asked(self, messages: Sequence[Message]) -> int:
        """The number of tokens that the texts of `messages` may keep."""
        if self.tokens is not None:
            return self.tokens
        assert self.rate is not None
        return max(1, round(self.rate * sum(self.count(m.content) for m in messages)))

    def prompt(self, messages: tuple[Message, ...]) -> Prompt:
        """`messages` with the words that may be judged."""
        chosen = {n: words(m.content, self.protect) for n, m in enumerate(messages) if m.role in self.roles}
        return Prompt(messages, chosen)

    async def shrink(self, request: Request) -> Shrunk:
        """The messages without the words that are worth least."""
        self.protect.check(request.messages)
        asked = self.asked(request.messages)
        whole = [self.count(m.content) for m in request.messages]
        if sum(whole) <= asked:
            return Shrunk.of(request.messages)
        prompt = self.prompt(request.messages)
        free = prompt.free
        worth = dict(zip(free, await self.judge(prompt), strict=True))
        order = sorted(free, key=lambda pair: (worth[pair], pair))

        def left(dropped: int) -> int:
            gone = _by_message(order[:dropped])
            return sum(self.count(_rest(prompt, n, gone[n])) if n in gone else whole[n] for n in range(len(whole)))

        while True:
            dropped, got = _fewest(left, len(order), sum(whole), asked)
            note = f"; {asked} tokens were asked for, and {got} have to stay" if got > asked else ""
            made = {}
            for n, gone in _by_message(order[:dropped]).items():
                for start, end, run in without(request.messages[n].content, prompt.words[n], gone):
                    why = self.why([worth[n, i] for i in run]) + note
                    made[Cut(n, start, end, by=_named(self), why=why)] = [(n, i) for i in run]
            refused = made.keys() - harmless(request.messages, made, self.protect)
            if not refused:
                break
            # What stands around the gap would be read as one: the word in it that is worth most stays between them.
            barred = {max(made[cut], key=lambda pair: (worth[pair], pair)) for cut in refused}
            order = [pair for pair in order if pair not in barred]
        if got > asked and self.tokens is not None:
            raise InvalidRequest(
                f"{got} tokens of this prompt are protected or in messages of other roles, and tokens is {asked}; allow at "
                f"least {got}, or protect less"
            )
        return Shrunk.of(request.messages, made, self.protect)


def _named(shrinker: Shrinker) -> str:
    """The name of the rule as cuts show it: ByPerplexity is "by perplexity"."""
    name = type(shrinker).__name__
    return "".join(f" {c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _by_message(gone: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    return {n: [i for _, i in group] for n, group in groupby(sorted(gone), key=lambda pair: pair[0])}


def _rest(prompt: Prompt, number: int, gone: Sequence[int]) -> str:
    text, at, kept = prompt.messages[number].content, 0, []
    for start, end, _ in without(text, prompt.words[number], gone):
        kept.append(text[at:start])
        at = end
    return "".join((*kept, text[at:]))


def _fewest(left: Callable[[int], int], most: int, whole: int, asked: int) -> tuple[int, int]:
    """The fewest words to drop so that at most `asked` tokens are left, of `most` words at most, and what is then left.

    `whole` is more than `asked`. Where tokens do not fall with every word, the number below it leaves too many all the same.
    """
    low, above, high = 0, whole, most
    got = left(most)
    if got > asked:
        return most, got
    halve = False
    while high - low > 1:
        # Tokens fall nearly evenly with words, so a guess on the straight line lands near; every second step halves.
        guess = low + (high - low) // 2 if halve else low + round((high - low) * (above - asked) / max(1, above - got))
        middle, halve = min(high - 1, max(low + 1, guess)), not halve
        found = left(middle)
        if found > asked:
            low, above = middle, found
        else:
            high, got = middle, found
    return high, got
