"""Signs, operators and emoji: the two questions must have the same ones in the same order.

Signs of currencies are left to `units`, which compares them with the words for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.numbers import is_number_word
from labkit.caches.contrast.reading import KEPT, Reading
from labkit.caches.contrast.unit_words import SIGNS

_SPOKEN = {"minus": "-", "negative": "-", "plus": "+"}
_COMPARED = {"greater": ">", "larger": ">", "bigger": ">", "less": "<", "smaller": "<", "lower": "<"}


def symbols(a: Reading, b: Reading) -> Iterator[Difference]:
    """The signs that are in one question and not in the other; if only their order differs, all signs."""
    found, asked = _symbols(a), _symbols(b)
    if found == asked:
        return
    only, other = Counter(found) - Counter(asked), Counter(asked) - Counter(found)
    if only or other:
        yield Difference("symbol", " ".join(only.elements()), " ".join(other.elements()))
    else:
        yield Difference("symbol", " ".join(found), " ".join(asked))


@lru_cache(maxsize=KEPT)
def _symbols(reading: Reading) -> list[str]:
    found = []
    tokens = reading.tokens
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else None
        if token.sort == "symbol":
            if token.text not in SIGNS:  # `units` compares signs of currencies: $ is "dollars"
                found.append(token.text)
        elif token.low in _SPOKEN and following and (following.sort == "literal" or is_number_word(following.low)):
            found.append(_SPOKEN[token.low])
        elif token.low in _COMPARED and following and following.low == "than":
            found.append(_COMPARED[token.low])
    return found
