"""Numbers in figures and in words, and everything else with a digit in it: the same ones must occur equally often.

"two", "2" and "zwei" are one number. "one" counts only if something else is counted too, because "the red one" counts
nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.reading import KEPT, Reading

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_WORDS: Mapping[str, Mapping[str, int]] = {
    "en": {
        **{word: n for n, word in enumerate((_UNITS + " eighteen nineteen").split())},
        **{w: 10 * n for n, w in enumerate(listed("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)},
        "dozen": 12,
    },
    "de": {
        w: n for n, w in enumerate(listed("null _ zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")) if w != "_"
    },
    "fr": {w: n for n, w in enumerate(listed("zéro _ deux trois quatre cinq six sept huit neuf dix onze douze"))},
    "es": {w: n for n, w in enumerate(listed("cero _ dos tres cuatro cinco seis siete ocho nueve diez once doce"))},
    "it": {w: n for n, w in enumerate(listed("zero _ due tre quattro cinque sei sette otto nove dieci undici dodici"))},
    "pt": {w: n for n, w in enumerate(listed("zero _ dois três quatro cinco seis sete oito nove dez onze doze"))},
    "nl": {w: n for n, w in enumerate(listed("nul _ twee drie vier vijf zes zeven acht negen tien elf twaalf"))},
    "ru": {w: n for n, w in enumerate(listed("ноль один два три четыре пять шесть семь восемь девять десять"))},
}
_ENGLISH_TOO = frozenset(("due", "elf", "null", "once", "sept"))
# A few words of another language, such as "deux tentes", are taken for English: nothing else in them tells.
_EVERY = {
    **{w: n for words in _WORDS.values() for w, n in words.items() if w not in _ENGLISH_TOO and w != "_"},
    **_WORDS["en"],
}
_ANY = frozenset(word for words in _WORDS.values() for word in words) | {"hundred", "thousand", "million", "billion"}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {
    word: f"{n}th"
    for n, word in enumerate(listed("second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"), start=2)
}
_TIMES = {"thrice": "3×", "half": "½", "double": "2×", "triple": "3×", "halves": "½", "twofold": "2×", "threefold": "3×"}
_CJK = re.compile("[零〇一二三四五六七八九十百千万億亿两兩]")
_ORDINAL = re.compile(r"^(\d+)(?:st|nd|rd|th)$")
_THOUSANDS = re.compile(r"^\d{1,3}(?:,\d{3})+(?:\.\d+)?$")


def literals(a: Reading, b: Reading) -> Iterator[Difference]:
    """The literals and numbers in words that one question has and the other lacks, or has less often."""
    found, asked = Counter(numbers(a)), Counter(numbers(b))
    if found != asked:
        yield Difference("literal", " ".join((found - asked).elements()), " ".join((asked - found).elements()))


@lru_cache(maxsize=KEPT)
def numbers(reading: Reading) -> list[str]:
    """Every literal and number of a text, in order; numbers in words come as figures ("2", "21", "2000000", "3th")."""
    known = _EVERY if reading.language in ("en", "") else _WORDS.get(reading.language, _WORDS["en"])
    found: list[str] = []
    ones: list[int] = []  # positions in `found` of a "one" that stands alone
    value: int | None = None  # of the number that is being read
    alone = False
    in_figures = False

    def close() -> None:
        nonlocal value, alone, in_figures
        if value is not None:
            if alone and value == 1:
                ones.append(len(found))
            found.append(str(value))
        value, alone, in_figures = None, False, False

    after_number = False
    for token in reading.tokens:
        for part in token.low.split("-") if token.sort == "word" else [token.low]:
            n = known.get(part)
            if token.sort == "literal":
                close()
                text = _THOUSANDS.sub(lambda m: m.group().replace(",", ""), part)
                if text.isdecimal() and text.isascii() and (text == "0" or text[0] != "0"):
                    value, in_figures = int(text), True
                else:
                    match = _ORDINAL.match(text)
                    found.append(f"{match.group(1)}th" if match and match.group(1) != "1" else text)
            elif part in _SCALES and reading.language == "en":
                value, alone = (value if value is not None else 1) * _SCALES[part], False
            elif n is not None and part == "dozen":
                value, alone = (value if value is not None else 1) * 12, False
            elif n is not None:
                if value is not None and not in_figures and value and _fits(value, n):
                    value, alone = value + n, False
                else:
                    close()
                    value, alone = n, True
            elif part == "and" and value is not None and value >= 100:
                continue
            else:
                close()
                if part in _TIMES:
                    found.append(_TIMES[part])
                elif part in _ORDINALS and not (part == "second" and (after_number or token.low == "second-hand")):
                    found.append(_ORDINALS[part])
                elif not part.isascii():
                    found.extend("".join(_CJK.findall(part)))
            after_number = token.sort == "literal" or n is not None
    close()
    return [] if len(found) == len(ones) else found  # "one" counts only if something else is counted too


def is_number_word(word: str) -> bool:
    """Whether `word` (lower case) is a number in words, or ends in one: "two", "twenty-one", "zwei"."""
    return word.rsplit("-", 1)[-1] in _ANY


def _fits(value: int, n: int) -> bool:
    """Whether `n` continues a number in words that has reached `value`: twenty-one, two hundred and five."""
    below = 10 if value % 100 and value % 10 == 0 and value % 100 >= 20 else 100 if value % 100 == 0 and value >= 100 else 0
    return 0 < n < below
