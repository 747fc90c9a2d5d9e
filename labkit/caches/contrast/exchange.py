"""Two questions that are word for word the same, except for one or two words in one place.

People who ask the same question in other words rarely change so little; people who ask another question often do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.english import ARTICLES, ASKING, FRAME
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.negation import is_denial
from labkit.caches.contrast.numbers import is_number_word
from labkit.caches.contrast.reading import Reading
from labkit.caches.contrast.unit_words import WORDS

_MOST = 2  # words
# Words that may replace one another without changing the question.
_SYNONYMS: Mapping[str, int] = {
    word: number
    for number, group in enumerate((
        "enable activate", "disable deactivate", "shipping delivery postage", "buy purchase", "get receive obtain",
        "start begin", "big large", "fix repair", "picture image photo", "choose select pick", "help assist",
        "invoice bill", "trip journey", "ill sick", "fast quick", "cheap inexpensive", "film movie", "phone telephone",
        "tell show", "cost price", "explain describe", "car automobile", "cancel revoke", "change modify",
        "remove delete", "shop store", "possible feasible",
    ))
    for word in group.split()
}  # fmt: skip
_DETERMINERS = ARTICLES | {"your", "our"}
_QUESTIONS = frozenset(listed("how what which"))


def exchange(a: Reading, b: Reading) -> Iterator[Difference]:
    """The words that replace others in one place, if all other words are the same and in the same order.

    The whole texts are compared first, with up to two words exchanged. If that finds nothing, or only words that ask, they
    are compared again for a single word, without the opening ("Can I", "Tell me"), other words that ask, and articles.
    """
    words_a, words_b = ([WORDS.get(w, w) for w in r.words] for r in (a, b))
    found = _exchanged(words_a, words_b, _MOST)
    if found is None or _only_asks(*found, words_a):
        said = _said(words_a), _said(words_b)
        found = _exchanged(*said, 1)
        if found is not None and _only_asks(*found, said[0]):
            return
    if found is not None and not all(map(_is_number, (*found[0], *found[1]))):  # `literals` compares "two" and "2"
        yield Difference("exchange", " ".join(found[0]), " ".join(found[1]))


def _only_asks(old: Sequence[str], new: Sequence[str], words: Sequence[str]) -> bool:
    """Whether exchanging these words changes nothing: "may" for "can", "the" for "your", "how to" at the beginning."""
    both = {*old, *new}
    opening = list(words[: len(old)]) == list(old) or set(words[: words.index(old[0])]) <= FRAME
    questions = [{w for w in side if w in _QUESTIONS} for side in (old, new)]
    if len(old) == len(new) == 1 and _SYNONYMS.get(old[0], old[0]) == _SYNONYMS.get(new[0], new[0]):
        return True
    return both <= ASKING or both <= _DETERMINERS or (opening and both <= FRAME and not (all(questions) and len(both) > 1))


def _is_number(word: str) -> bool:
    return word[0].isdigit() or is_number_word(word)


def _said(words: Sequence[str]) -> list[str]:
    """The content of the question: without its opening, articles and words that ask.

    Denials in the opening are left out too; `negation` compares them.
    """
    begin = next((i for i, w in enumerate(words) if w not in FRAME and not is_denial(w)), len(words))
    return [w for w in words[begin:] if w not in ASKING and w not in ARTICLES]


def _exchanged(a: Sequence[str], b: Sequence[str], most: int) -> tuple[Sequence[str], Sequence[str]] | None:
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    old, new = a[start : len(a) - end], b[start : len(b) - end]
    if not old or not new or max(len(old), len(new)) > most or max(len(old), len(new)) * 2 > min(len(a), len(b)):
        return None
    return old, new
