"""Whether a cut would harm text that must stay: by removing it, changing it, gluing it to its neighbours, or inventing more.

Protected text is looked for before and after the cuts. A cut that is not lossless does harm where
- protected text lies in it, and its `left` does not say the same protected texts in the same order, no more and no fewer;
- protected text after the cuts runs across its edge: "4" and "5" would be read as "45";
- protected text beside it would become a part of a longer word: "no" and "n" would be read as "non".
A word that is read as a name only where it begins no sentence may change its place. Cuts that are lossless are made first:
what they hold can be restored, so they move protected text as they like. No cut at all may take a visible character apart or
leave one half of a pair of marks for right-to-left text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from labkit.request import InvalidValue, Message
from labkit.shrink.cut import Cut
from labkit.shrink.graphemes import splits
from labkit.shrink.protect import Protect, ProtectedTextLost

_OPENING, _CLOSING = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068", "\u202c\u2069"
_DIRECTED = re.compile(f"[{_OPENING}{_CLOSING}]")
_Span = tuple[int, int]
_Harm = tuple[int, str]  # the number of a cut, and what is wrong with it; protected text is named, other harm is in words


def made(text: str, cuts: Sequence[Cut]) -> str:
    """`text` with `cuts` made, which come in order and do not overlap."""
    pieces, at = [], 0
    for cut in cuts:
        pieces += [text[at : cut.start], cut.left]
        at = cut.end
    return "".join((*pieces, text[at:]))


def check(text: str, cuts: Sequence[Cut], protect: Protect) -> None:
    """Raise `InvalidValue` for `cuts` of one message, in order, that do not fit together or break what is one character.

    Raises `ProtectedTextLost` where they would harm what `protect` keeps.
    """
    _fit(text, cuts)
    for number, why in _broken(text, cuts):
        raise InvalidValue(f"{cuts[number]} {why}; move it to a place between two characters, or use labkit.shrink.harmless")
    for number, what in _lost(text, cuts, protect):
        raise ProtectedTextLost(
            f"{cuts[number].by or 'a cut'} would remove or change {what!r:.80} in message {cuts[number].message}, which is "
            "protected; leave it, use labkit.shrink.harmless, or take its pattern out of Protect"
        )


def harmless(messages: Sequence[Message], cuts: Iterable[Cut], protect: Protect) -> tuple[Cut, ...]:
    """Those of `cuts` that can be made together without harm to what `protect` keeps, in order; the others are left out.

    Raises `InvalidValue` for cuts that overlap or lie outside their message.
    """
    by_message: dict[int, list[Cut]] = {}
    for cut in sorted(cuts, key=lambda cut: (cut.message, cut.start, cut.end)):
        by_message.setdefault(cut.message, []).append(cut)
    kept: list[Cut] = []
    for number, own in by_message.items():
        if number >= len(messages):
            raise InvalidValue(f"{own[0]} lies outside the prompt, which has {len(messages)} messages")
        text = messages[number].content
        _fit(text, own)
        while found := {at for harm in (_broken, _lost_by(protect)) for at, _ in harm(text, own)}:
            own = [cut for at, cut in enumerate(own) if at not in found]
        kept += own
    return tuple(kept)


def _lost_by(protect: Protect) -> Callable[[str, Sequence[Cut]], Iterator[_Harm]]:
    return lambda text, cuts: _lost(text, cuts, protect)


def _fit(text: str, cuts: Sequence[Cut]) -> None:
    at = 0
    for cut in cuts:
        if cut.end > len(text):
            raise InvalidValue(f"{cut} lies outside its message, which has {len(text)} characters")
        if cut.start < at:
            raise InvalidValue(f"{cut} overlaps the cut before it; join the two")
        if cut.whole and (len(cuts) > 1 or cut.start or cut.end != len(text) or cut.left):
            raise InvalidValue(f"{cut} takes a whole message away, so it must be its only cut, from 0 to its end")
        at = cut.end


def _edges(cuts: Sequence[Cut]) -> list[_Span]:
    """Where the `left` of each cut stands once all are made."""
    found, moved = [], 0
    for cut in cuts:
        found.append((cut.start + moved, cut.start + moved + len(cut.left)))
        moved += len(cut.left) - (cut.end - cut.start)
    return found


def _broken(text: str, cuts: Sequence[Cut]) -> Iterator[_Harm]:
    """Cuts that take a visible character apart, or one half of a pair of marks of direction."""
    after = made(text, cuts)
    for number, (cut, edges) in enumerate(zip(cuts, _edges(cuts), strict=True)):
        if splits(text, cut.start) or splits(text, cut.end) or any(splits(after, edge) for edge in edges):
            yield number, "takes a visible character apart, or joins two"
    if _unmatched(after) - _unmatched(text):
        for number, cut in enumerate(cuts):
            if _DIRECTED.search(text, cut.start, cut.end) or _DIRECTED.search(cut.left):
                yield number, "leaves one half of a pair of marks of direction"


def _unmatched(text: str) -> Counter[str]:
    """The marks of direction that have no partner."""
    opened: list[str] = []
    alone: Counter[str] = Counter()
    for mark in _DIRECTED.findall(text):
        if mark in _OPENING:
            opened.append(mark)
        elif opened and (mark == "\u2069") == (opened[-1] in "\u2066\u2067\u2068"):
            opened.pop()
        else:
            alone[mark] += 1
    return alone + Counter(opened)


def _lost(text: str, cuts: Sequence[Cut], protect: Protect) -> Iterator[_Harm]:
    """Cuts that harm what `protect` keeps, each with the protected text."""
    numbers = [number for number, cut in enumerate(cuts) if not cut.lossless]
    if not numbers:
        return
    text, lossy = _after_lossless(text, cuts)
    after, edges = made(text, lossy), _edges(lossy)
    before_spans, after_spans = protect.spans(text), protect.spans(after)
    for number, cut, (start, end) in zip(numbers, lossy, edges, strict=True):
        gone = _overlapping(before_spans, cut.start, cut.end)
        said = _overlapping(after_spans, start, end)
        words = [text[a:b] for a, b in gone]
        torn = next((text[a:b] for a, b in gone if a < cut.start or b > cut.end), None)
        glued = next((after[a:b] for a, b in said if a < start or b > end), None)
        if torn is not None or glued is not None:
            yield number, torn if torn is not None else glued or ""
        elif words != (new := [after[a:b] for a, b in said]):
            yield number, next((a for a, b in zip_longest(words, new) if a and a != b), None) or new[len(words)]
        elif (beside := _grown(text, after, before_spans, after_spans, cut, start, end)) is not None:
            yield number, beside
        elif (left := _left_over(text, after, before_spans, after_spans, cut, start, end)) is not None:
            yield number, left


def _after_lossless(text: str, cuts: Sequence[Cut]) -> tuple[str, list[Cut]]:
    """The text with the lossless cuts made, and the others, moved to their places in it."""
    moved, lossy = 0, []
    for cut in cuts:
        if cut.lossless:
            moved += len(cut.left) - (cut.end - cut.start)
        else:
            lossy.append(replace(cut, start=cut.start + moved, end=cut.end + moved))
    return made(text, [cut for cut in cuts if cut.lossless]), lossy


def _overlapping(spans: Sequence[_Span], start: int, end: int) -> Sequence[_Span]:
    """Those of `spans`, in order, that have a character in start to end; for an empty range, those around it."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    last = bisect_left(spans, max(end, start + (start == end)), key=lambda span: span[0])
    found = spans[first:last]
    return found if start < end else [span for span in found if span[0] < start < span[1]]


def _grown(
    text: str, after: str, spans: Sequence[_Span], after_spans: Sequence[_Span], cut: Cut, start: int, end: int
) -> str | None:
    """The protected word beside the cut that would not be the same word any more; None for none."""
    before, behind = _ending(spans, cut.start), _beginning(spans, cut.end)
    if before is not None and (_ending(after_spans, start) is None if _word(text, cut.start) else _glued(after, start)):
        return text[slice(*before)]
    if behind is not None and (_beginning(after_spans, end) is None if _word(text, cut.end - 1) else _glued(after, end)):
        return text[slice(*behind)]
    return None


def _left_over(
    text: str, after: str, spans: Sequence[_Span], after_spans: Sequence[_Span], cut: Cut, start: int, end: int
) -> str | None:
    """What is left of a torn word beside the cut and would be read as protected text that nobody wrote; None for none."""
    found = _ending(after_spans, start) if _glued(text, cut.start) else None
    if found is not None and (found[0] + cut.start - start, cut.start) != _ending(spans, cut.start):
        return after[slice(*found)]
    found = _beginning(after_spans, end) if _glued(text, cut.end) else None
    if found is not None and (cut.end, found[1] + cut.end - end) != _beginning(spans, cut.end):
        return after[slice(*found)]
    return None


def _ending(spans: Sequence[_Span], at: int) -> _Span | None:
    found = bisect_left(spans, at, key=lambda span: span[1])
    return spans[found] if found < len(spans) and spans[found][1] == at else None


def _beginning(spans: Sequence[_Span], at: int) -> _Span | None:
    found = bisect_left(spans, at, key=lambda span: span[0])
    return spans[found] if found < len(spans) and spans[found][0] == at else None


def _glued(text: str, at: int) -> bool:
    return _word(text, at - 1) and _word(text, at)


def _word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")
