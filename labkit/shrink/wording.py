"""The words of a text, as the units that may be dropped: never half of one, and never two run together by what went."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unicodedata import category

from labkit.shrink.protect import Protect

_OPEN = "\"'([{<«„“‘‚‹¿¡"
_CLOSE = ".,;:!?)]}>\"'»”’›…،؛؟。、！？।"


@dataclass(frozen=True, slots=True)
class WordSpan:
    """Characters `start` to `end` of a text: a word, or the punctuation before or after one. `fixed` ones must stay."""

    start: int
    end: int
    fixed: bool = False


def words(text: str, protect: Protect) -> list[WordSpan]:
    """The words of `text` in order; white space belongs to none.

    Quotes and brackets around a word, and the punctuation behind it, are words of their own. What `protect` keeps is fixed,
    each protected span with the words that it touches as one; so is a word whose first letter joins the one before it.
    """
    found: list[WordSpan] = []
    spans = protect.spans(text)
    at = 0
    for piece_start, piece_end in _pieces(text):
        start, end, fixed = piece_start, piece_end, False
        while at < len(spans) and spans[at][0] < end:
            if spans[at][1] <= start:  # white space that is protected
                found.append(WordSpan(*spans[at], True))
            else:
                start, end, fixed = min(start, spans[at][0]), max(end, spans[at][1]), True
            at += 1
        joins = category(text[piece_start])[0] == "M"  # its first letter stands on the one before it
        if found and (joins or start < found[-1].end):
            found[-1] = WordSpan(found[-1].start, max(end, found[-1].end), True)
        else:
            found.append(WordSpan(start, end, fixed))
    found += [WordSpan(start, end, True) for start, end in spans[at:]]
    return found


def without(text: str, of: Sequence[WordSpan], gone: Sequence[int]) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """The cuts that take the words number `gone` (in order) out of `text`: where from, where to, and which words they hold.

    `of` are all words of `text`. Where words go, one of the blanks around them stays, with a line break if one of them had
    one. A run of words that leaves a line break in its middle makes two cuts.
    """
    at = 0
    while at < len(gone):
        upto = at
        while upto + 1 < len(gone) and gone[upto + 1] == gone[upto] + 1:
            upto += 1
        run = gone[at : upto + 1]
        at = upto + 1
        first, last = run[0], run[-1]
        begin = of[first - 1].end if first else 0
        finish = of[last + 1].start if last + 1 < len(of) else len(text)
        gaps = [(begin, of[first].start)]
        gaps += [(of[i].end, of[i + 1].start) for i in run[:-1]]
        gaps.append((of[last].end, finish))
        stays = _staying(text, gaps, first == 0, last + 1 == len(of), text[finish : finish + 1])
        left, right = gaps[stays]
        if begin < left:
            yield begin, left, tuple(run[:stays])
        if right < finish:
            yield right, finish, tuple(run[stays:])


def _staying(text: str, gaps: Sequence[tuple[int, int]], at_start: bool, at_end: bool, follows: str) -> int:
    """Which of the `gaps` around and between dropped words stays."""
    if at_start:
        return 0
    if at_end:
        return len(gaps) - 1
    sizes = [end - start for start, end in gaps]
    breaks = [text.count("\n", *gap) for gap in gaps]
    if not sizes[-1] and follows in _CLOSE and not max(breaks):
        return len(gaps) - 1
    best = [n for n in range(len(gaps)) if (breaks[n], sizes[n]) == max(zip(breaks, sizes, strict=True))]
    return best[-1] if best[-1] == len(gaps) - 1 else best[0]


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        inner, outer = start, end
        while inner < end and text[inner] in _OPEN:
            inner += 1
        while outer > inner and text[outer - 1] in _CLOSE:
            outer -= 1
        # A sign that carries marks of its own is a letter to the reader.
        if inner < end and (category(text[inner])[0] == "M" or text[inner] == "\u200d"):
            inner = start
        if start < inner:
            yield start, inner
        if inner < outer:
            yield inner, outer
        if outer < end:
            yield outer, end
