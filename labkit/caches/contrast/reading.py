"""A question taken apart into tokens, once for all checks.

Tokens are words, literals (anything with a digit in it, and names such as C++ and C#) and symbols. Punctuation of prose is
not a token: a question mark, a comma, a quotation mark. A sign with a meaning is one: "-40", "x > 5", "!done", 👍.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from labkit.caches.contrast.foreign import POLITE, POLITE_CJK, is_cjk, language_of
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.unit_words import SHORT, WORDS

KEPT = 1024
Sort = Literal["word", "literal", "symbol"]


@dataclass(frozen=True, slots=True)
class Token:
    """A word, literal or symbol: as typed, in lower case, its sort, and whether it begins a sentence."""

    text: str
    low: str
    sort: Sort
    first: bool


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that checks can cache their results for one
class Reading:
    """A text without greetings and thanks: its tokens, its language ("" if unknown), and its length in characters.

    `words`: words and literals in lower case, in order, without the "'s" of a genitive.
    """

    tokens: tuple[Token, ...]
    words: tuple[str, ...]
    language: str
    characters: int


@lru_cache(maxsize=KEPT)  # a cached question is read again and again, always with the same result
def read(text: str) -> Reading:
    """`text` taken apart."""
    plain = _bare(_fold(_SPACES.sub(r"\1", text)).strip())
    tokens = tuple(_tokens(plain))
    bare = [t.low for t in tokens if t.sort == "word" and (t.first or not t.text[0].isupper() or t.text.isupper())]
    language = language_of(bare or [t.low for t in tokens if t.sort == "word"])
    polite = POLITE.get(language, frozenset())
    if is_cjk(language):
        tokens = tuple(_tokens(POLITE_CJK.sub(" ", plain)))
    elif language == "en" and not plain.isascii():
        tokens = tuple(replace(t, low=_unaccented(t.low)) for t in tokens)
    tokens = tuple(t for t in tokens if t.low not in polite)
    words = tuple(t.low.removesuffix("'s") for t in tokens if t.sort != "symbol")
    return Reading(tokens, words, language, len(plain))


def _unaccented(word: str) -> str:
    """The word without accents on its Latin letters: people who write English often leave them out (café, cafe)."""
    if word.isascii() or not all(ord(c) < 0x250 for c in word if c.isalpha()):
        return word
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def _bare(text: str) -> str:
    """`text` without a greeting at its beginning and thanks at its end."""
    text = _HELLO.sub("", text)
    head, tail = text[:-_ENDING], text[-_ENDING:]
    return (head + _THANKS.sub("", tail)).strip()


_ENDING = 200  # characters at the end in which thanks are looked for
_SPACES = re.compile(r"(\s)\s+")
_HELLO = re.compile(
    r"^(?:(?:hi|hello|hey|hey there|good (?:morning|afternoon|evening|day)|dear \w+|quick question)\s*[,.:!]\s*"
    r"|i (?:could not|couldn't|did not|didn't) find (?:out )?)+",
    re.IGNORECASE,
)
_THANKS = re.compile(
    # Only one part of the pattern may match a space, or a text full of thanks would take far too long.
    r"(?:\b(?:thanks|thank you|please hurry|cheers|regards|bye|please)(?: a lot| so much| very much| in advance)?"
    r"[\s.!,?]*)+$",
    re.IGNORECASE,
)
# Marks that belong to the letter before them, but that Python does not count as letters.
_MARKS = "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
_L = rf"[\w{_MARKS}]"
_TOKEN = re.compile(
    rf"(?P<literal>[A-Z]{{1,3}}\$|[A-Za-z]\w*(?:\+\+|\#)(?![\w+#])|\.(?=\d){_L}+|{_L}*\d(?:[\w.,/:-]*\w)?)"
    rf"|(?P<word>{_L}+(?:['.-]{_L}+)*)"
    r"|(?P<symbol>[()\[\]{}<>](?![=<>])|[^\w\s]+)"
)
_PROSE = frozenset(".,;:!?'\"“”‘’«»‹›„‚…–—¿¡、。，！？：；「」『』【】《》〈〉・`´·؟،؛।॥")
_INITIALS = re.compile(r"^[A-Za-z](?:\.[A-Za-z])+$")
_HOSTS = frozenset(listed("what where who how when why it that there here i you he she we they let"))
_VERBS = {"s": "is", "d": "would", "m": "am", "re": "are", "ve": "have", "ll": "will"}
_GLUED = re.compile(r"^(\d[\d.,]*)-?([^\W\d_]{1,8})$")
_BRACKETS = frozenset("()[]{}")
_FRACTIONS = frozenset("¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞")
CURRENCIES = "$¢£¤¥֏؋৳฿₠-₿﷼"
_PARTS = re.compile(rf"[()\[\]{{}}{CURRENCIES}]|[^()\[\]{{}}{CURRENCIES}]+")
_FOLDS = (
    (re.compile(r"[\u00ad\u200b\u200c\u2060\ufe0e\ufe0f\ufeff]"), ""),  # invisible characters
    (re.compile(r"[\u2212\u2010\u2011]|(?<=\d)[–—](?=\d)"), "-"),
    (re.compile("[’ʼ＇]"), "'"),
    (re.compile(r"\s*[°º]\s*C\b|℃"), " celsius"),
    (re.compile(r"\s*[°º]\s*F\b|℉"), " fahrenheit"),
    (re.compile(r"(?<=\d)\s*(?:percent|per cent)\b", re.IGNORECASE), "%"),
)


def _fold(text: str) -> str:
    """The text with one spelling for characters that look alike.

    These are composed letters, full-width forms, apostrophes, minus signs, degrees and per cent; invisible characters are
    removed.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = "".join(chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c for c in text)
    for pattern, to in _FOLDS:
        text = pattern.sub(to, text)
    return text


def _tokens(text: str) -> Iterator[Token]:
    first = True
    end = 0
    for match in _TOKEN.finditer(text):
        gap = text[end : match.start()]
        sort, typed = str(match.lastgroup), match.group()
        if sort == "symbol":
            for sign in _signs(text, match):
                yield Token(sign, sign, "symbol", False)
            if text[match.end() : match.end() + 1].isspace() and any(c in ".!?:" for c in typed):
                first = True
            end = match.end()
            continue
        if "\n" in gap:
            first = True
        if sort == "literal" and typed.startswith("."):
            typed = "0" + typed
        glued = _GLUED.match(typed)
        if glued and (glued[2] in SHORT or glued[2].lower() in WORDS):  # 5km is 5 km
            yield Token(glued[1], glued[1], "literal", first)
            first, typed, sort = False, glued[2], "word"
        if _INITIALS.match(typed):  # U.S. is US
            typed = typed.replace(".", "")
        host, _, short = typed.partition("'")
        if sort == "word" and short.lower() in _VERBS and host.lower() in _HOSTS:  # what's is "what is"
            yield Token(host, host.lower(), "word", first)
            first, typed = False, _VERBS[short.lower()]
        numeric = sort == "literal" or "." in typed or any(c.isdigit() or c in _FRACTIONS for c in typed)
        yield Token(typed, typed.lower(), "literal" if numeric else "word", first)
        first, end = False, match.end()


def _signs(text: str, match: re.Match[str]) -> Iterator[str]:
    """The signs of a run that have a meaning in this place; none for punctuation of prose."""
    run, start, end = match.group(), match.start(), match.end()
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    apart = (not before or before.isspace()) and (not after or after.isspace())
    last = end == len(text)
    if set(run) <= _PROSE:
        word_before, word_after = before.isalnum(), after.isalnum() or after == "_"
        if "!" in run and not word_before and (word_after or after == "("):  # not
            yield "!"
        elif run[0] == "!" and (before.isdigit() or _lone_letter(text, start)):  # factorial
            yield "n!"
        elif run == "." and word_after and not word_before:  # .NET, .txt
            yield "."
        elif (len(run) > 1 and word_before and word_after and run[0] in ".:") or (
            len(run) > 1 and apart and before and not last and set(run) <= set("?:!")
        ):  # std::sort, 1..5
            yield run
        return
    if set(run) == {"-"}:
        near = text[max(start - 2, 0) : start].rstrip()[-1:], text[end : end + 2].lstrip()[:1]
        if apart:
            sums = any(c.isdigit() or c in _BRACKETS for c in near) or _lone_letter(text, start - (before.isspace()))
            if sums and before:
                yield "-"
        elif after.isalnum() and not before.isalpha():
            yield run  # -40, -v, --force, )-3
        elif len(run) > 1 and not (before.isalpha() and after.isalpha()):
            yield run  # i--
        return
    if run == "&" and apart:
        return  # "and"
    while run and run[-1] in _PROSE and (not after or after.isspace()):
        run = run[:-1]
    run = run.lstrip(",;\"“«‘'`").rstrip("\"”»’'`")
    yield from _PARTS.findall(run)


def _lone_letter(text: str, end: int) -> bool:
    """Whether the word that ends at `end` is a single letter, as a variable is."""
    return end > 0 and text[end - 1].isalpha() and not (end > 1 and text[end - 2].isalnum())
