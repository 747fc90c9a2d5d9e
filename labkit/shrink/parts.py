"""Parts of a text by their characters: where they overlap, what lies outside of them, and which of them may go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from labkit.request import Message
from labkit.shrink.cut import Cut
from labkit.shrink.harm import harmless
from labkit.shrink.protect import Protect
from labkit.shrink.shrunk import Shrunk


def overlaps(spans: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of `spans`, which are in order and apart, has a character from `start` to `end`."""
    at = bisect_left(spans, (start, start))
    return (at > 0 and spans[at - 1][1] > start) or (at < len(spans) and spans[at][0] < end)


def outside(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`text` without `spans`, and without blanks at its ends."""
    left, at = "", 0
    for start, end in sorted(spans):
        left, at = left + text[at:start], max(at, end)
    return (left + text[at:]).strip()


def without_harm(
    messages: Sequence[Message], protect: Protect, stay: set[int], choose: Callable[[set[int]], Mapping[int, Cut]]
) -> Shrunk:
    """`messages` with the cuts that `choose` makes, when it is told the numbers of the parts that must stay.

    A part whose cut would harm what `protect` keeps, or one half of a visible character, must stay as well; then there is
    another choice, with less room for the others.
    """
    while True:
        cuts = choose(stay)
        fine = set(harmless(messages, cuts.values(), protect))
        if len(fine) == len(cuts):
            return Shrunk.of(messages, fine, protect)
        stay = stay | {number for number, cut in cuts.items() if cut not in fine}
