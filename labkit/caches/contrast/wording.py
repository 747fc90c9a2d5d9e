"""The stricter rule: if the checks cannot weigh words, only the same words in the same order pass.

It applies in every language but English (`language`) and in a long text (`length`). In a long text the vectors hardly see
what one clause changes, and see nothing beyond the embedder's window. Letter case, white space, punctuation of prose and
polite words may differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.foreign import is_cjk
from labkit.caches.contrast.reading import Reading

# An embedder reads 256 tokens (MiniLM), and an English token has at least one character, so such a text is read whole.
LONG = 250  # characters


def only_the_same_words(a: Reading, b: Reading) -> bool:
    """Whether the stricter rule applies to the two questions."""
    return _foreign(a, b) or max(a.characters, b.characters) > LONG


def wording(a: Reading, b: Reading) -> Iterator[Difference]:
    """The words and signs that differ between two texts under the stricter rule."""
    said_a, said_b = _said(a), _said(b)
    if said_a != said_b:
        yield Difference("language" if _foreign(a, b) else "length", *_middle(said_a, said_b))


def _foreign(a: Reading, b: Reading) -> bool:
    return a.language != "en" or b.language != "en"


def _said(reading: Reading) -> list[str]:
    words = [t.low for t in reading.tokens if t.low not in ("please", "kindly")]
    return list("".join(words)) if is_cjk(reading.language) else words


def _middle(a: list[str], b: list[str]) -> tuple[str, str]:
    """The words from the first that differs to the last that differs, at most twelve of each text."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return " ".join(a[start : len(a) - end][:12]), " ".join(b[start : len(b) - end][:12])
