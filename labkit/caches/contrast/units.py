"""Units and currencies: beside a number they must be the same; elsewhere the two questions may not name different ones.

A short unit is read in its letter case if that decides what it is: MB and Mb, mW and MW, M and m.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.numbers import is_number_word
from labkit.caches.contrast.reading import KEPT, Reading, Token
from labkit.caches.contrast.unit_words import SHORT, SIGNS, WORDS


def units(a: Reading, b: Reading) -> Iterator[Difference]:
    """Units beside numbers that differ; units alone, if each question names one that the other does not name."""
    beside_a, named_a = _units(a)
    beside_b, named_b = _units(b)
    only, other = Counter(beside_a) - Counter(beside_b), Counter(beside_b) - Counter(beside_a)
    cased_a, cased_b = _cased(a), _cased(b)
    same_letters = [w.lower() for w in cased_a] == [w.lower() for w in cased_b]
    if same_letters and [SHORT[w] for w in cased_a] != [SHORT[w] for w in cased_b]:
        yield Difference("unit", " ".join(cased_a), " ".join(cased_b))
    # A unit beside a number in one question may stand alone in the other: "5 of your dollars".
    if only or other:
        yield Difference("unit", " ".join(sorted(only.elements())), " ".join(sorted(other.elements())))
        return
    alone_a, alone_b = named_a - named_b - set(beside_b), named_b - named_a - set(beside_a)
    if alone_a and alone_b:
        yield Difference("unit", " ".join(sorted(alone_a)), " ".join(sorted(alone_b)))


def _cased(reading: Reading) -> list[str]:
    """Short units of two or more letters, as typed: their letter case may tell two units apart."""
    return [t.text for t in reading.tokens if t.text in SHORT and len(t.text) > 1 and t.text.swapcase() != t.text]


@lru_cache(maxsize=KEPT)
def _units(reading: Reading) -> tuple[list[str], set[str]]:
    """The units beside numbers, each as often as it occurs there, and the set of all other units that are named."""
    beside: list[str] = []
    named: set[str] = set()
    tokens = [t for t in reading.tokens if t.sort != "symbol" or t.text in SIGNS]
    for i, token in enumerate(tokens):
        before, after = tokens[i - 1] if i else None, tokens[i + 1] if i + 1 < len(tokens) else None
        if token.sort == "symbol":
            if _counts(before) or _counts(after):
                beside.append(SIGNS[token.text])
            else:
                named.add(SIGNS[token.text])
        elif _counts(before) and token.text in SHORT:
            beside.append(SHORT[token.text])
        elif token.low in WORDS:
            (beside.append if _counts(before) else named.add)(WORDS[token.low])
    return beside, named


def _counts(token: Token | None) -> bool:
    return (
        token is not None
        and token.low != "one"
        and ((token.sort == "literal" and token.low[-1].isdigit()) or is_number_word(token.low))
    )
