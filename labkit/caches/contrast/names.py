"""Names and abbreviations: whom, where and what a question is about."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.foreign import is_cjk
from labkit.caches.contrast.reading import Reading, Token

_LATIN = 0x24F  # the last code point of the extended Latin letters


def names(a: Reading, b: Reading) -> Iterator[Difference]:
    """Names that only one question has; abbreviations (TCP, C), if each question has one that the other lacks.

    At the beginning of a sentence, a name cannot be told from other words. So each name is looked for among all words of the
    other question.
    """
    if is_cjk(a.language) or is_cjk(b.language):
        return  # no spaces between words and no capitals there; `wording` compares the whole text
    words_a, words_b = ({_bare(t) for t in r.tokens if t.sort != "symbol"} for r in (a, b))
    names_a = {_bare(t) for t in a.tokens if is_name(t)} - words_b
    names_b = {_bare(t) for t in b.tokens if is_name(t)} - words_a
    short_a = {_bare(t) for t in a.tokens if _is_short(t)} - words_b
    short_b = {_bare(t) for t in b.tokens if _is_short(t)} - words_a
    if short_a and short_b:
        names_a, names_b = names_a | short_a, names_b | short_b
    if names_a or names_b:
        yield Difference("name", " ".join(sorted(names_a)), " ".join(sorted(names_b)))


def is_name(token: Token) -> bool:
    """Whether the token is a word in a script other than Latin, or a capitalised word.

    A word that begins a sentence does not count as capitalised, and neither does an abbreviation.
    """
    if token.sort != "word":
        return False
    if not token.text.isascii() and any(ord(c) > _LATIN for c in token.text if c.isalpha()):
        return True
    return not token.first and token.text[0].isupper() and not token.text.split("'")[0].isupper()


def _is_short(token: Token) -> bool:
    word = token.text.split("'")[0]
    return token.sort == "word" and word.isupper() and word not in ("I", "OK") and not (token.first and word == "A")


def _bare(token: Token) -> str:
    return token.low.removesuffix("'s")
