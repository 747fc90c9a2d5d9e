"""What no shrinker may drop: numbers, names, dates, negations, instructions on safety, and text that is marked."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self, get_args

from labkit.request import InvalidRequest, InvalidValue, Message
from labkit.shrink.facts import PATTERNS, SENTENCES, Kind

_SENTENCE_ENDS = re.compile(r"[.!?]++[\"'”’»)\]]*+(?=\s|$)|[\n。！？؟।]")


class ProtectedTextLost(InvalidValue):
    """A cut would remove text that must stay."""


class InstructionMissing(InvalidRequest):
    """An instruction that must reach the model is not in the prompt, so it cannot be protected."""


@dataclass(frozen=True, slots=True)
class Protect:
    """What stays in the prompt, whatever is shrunk. Join them with `|`: `NUMBERS | NEGATIONS`, `FACTS | marked("evidence")`.

    What one of `patterns` (regular expressions) matches stays. Each of `instructions` (exact texts) stays, and must be in
    the prompt (`check`). `kinds` are those of `labkit.shrink.facts`, best taken by their presets (`NUMBERS`, …). What stands
    between `<tag>` and `</tag>` stays for each of `tags`. Raises `InvalidValue` for a pattern that is no regular expression,
    an unknown kind, and a tag that is no name, and names it.
    """

    patterns: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InvalidValue(f"Protect: {pattern!r:.80} is no regular expression ({error}); correct it") from error
        for kind in self.kinds:
            if kind not in get_args(Kind):
                raise InvalidValue(f"Protect: {kind!r:.40} is no kind; use some of {', '.join(get_args(Kind))}")
        for tag in self.tags:
            if not re.fullmatch(r"[\w.\-]+", tag):
                raise InvalidValue(f"Protect: {tag!r:.40} is no name of a tag; give a word, as in marked('evidence')")

    def __or__(self, other: Self) -> Self:
        """What either of the two protects."""
        both = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(tuple(dict.fromkeys(mine + yours)) for mine, yours in both))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where protected text stands, as (start, end) in order; those that overlap are joined."""
        patterns = [*self.patterns, *map(_between, self.tags), *(p for kind in self.kinds for p in PATTERNS.get(kind, ()))]
        found = [m.span() for pattern in patterns for m in re.finditer(pattern, text) if m.end() > m.start()]
        keys = [m.start() for kind in self.kinds for p in SENTENCES.get(kind, ()) for m in re.finditer(p, text)]
        if keys:
            ends = [0, *(m.end() for m in _SENTENCE_ENDS.finditer(text)), len(text)]
            found += [_sentence(text, ends, key) for key in keys]
        for instruction in self.instructions:
            at = text.find(instruction)
            while instruction and at >= 0:
                found.append((at, at + len(instruction)))
                at = text.find(instruction, at + len(instruction))
        return joined(found)

    def check(self, messages: Sequence[Message]) -> None:
        """Refuse a prompt that lacks one of the `instructions`, with `InstructionMissing`, which names it."""
        for instruction in self.instructions:
            if not any(instruction in message.content for message in messages):
                raise InstructionMissing(
                    f"the instruction {instruction!r:.120} must reach the model and is not in the prompt; put it there word "
                    "for word, or take it out of Protect.instructions"
                )


def _between(tag: str) -> str:
    return rf"(?s)<{re.escape(tag)}(?:\s[^<>]*+)?>(?:(?!</?{re.escape(tag)}[\s>]).)*+</{re.escape(tag)}>"


def marked(*tags: str) -> Protect:
    """What stands between `<tag>` and `</tag>`, the marks included, for each of `tags`. Tags of one name do not nest."""
    return Protect(tags=tags)


NOTHING = Protect()
NUMBERS = Protect(kinds=("numbers",))
"""Everything with a figure in it (amounts, prices, shares, order numbers, versions, phone numbers, addresses of machines),
in the digits of all scripts, with its sign, currency and unit; Chinese and Japanese numerals; English number words."""
DATES = Protect(kinds=("dates",))
"""Dates with the month in words, in ten languages, and days of the week in three. Those in figures are `NUMBERS`."""
NAMES = Protect(kinds=("names",))
"""Words with a capital that begin no sentence, words in capitals, short quoted texts, and @handles."""
LINKS = Protect(kinds=("links",))
"""Addresses of pages and of mail."""
NEGATIONS = Protect(kinds=("negations",))
"""Words that turn a statement round or narrow it (not, n't, never, without, unless, only, at most), in twenty languages."""
SAFETY = Protect(kinds=("safety",))
"""Sentences that oblige or forbid (must, never, always, do not, only if, required, forbidden): they stay whole."""
MARKED = marked("keep")
"""Evidence that must stay word for word: `<keep>…</keep>`."""
FACTS = MARKED | NUMBERS | DATES | NAMES | LINKS | NEGATIONS | SAFETY
"""All of these; the default of all shrinkers."""


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """`spans` in order, with those that overlap made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _sentence(text: str, ends: Sequence[int], key: int) -> tuple[int, int]:
    """The sentence around `key`, without blanks at its ends."""
    number = bisect_right(ends, key)
    start, end = ends[number - 1], ends[min(number, len(ends) - 1)]
    return start + _leading(text, start, key), end - _trailing(text, key, end)


def _leading(text: str, start: int, key: int) -> int:
    return key - start - len(text[start:key].lstrip())


def _trailing(text: str, key: int, end: int) -> int:
    return end - key - len(text[key:end].rstrip())
