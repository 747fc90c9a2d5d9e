"""The same words in other places: who does it to whom, from where to where, which number comes first.

English expresses this by word order, and a vector hardly sees it. Changes of order without a change of meaning pass: a part
that is put in front ("these boots may I return", "Oslo: is it open?"), and "the tent of Mira" for "Mira's tent".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.english import ARTICLES, GRAMMAR, stem
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.names import is_name
from labkit.caches.contrast.numbers import is_number_word
from labkit.caches.contrast.reading import KEPT, Reading, Token

# Prepositions that give two things their roles, such as origin and destination.
_DIRECTED = frozenset(
    listed("from to into onto than by before after until via through against over under above below versus vs towards")
)
_OWNERS = frozenset(listed("my your his her our their this that these those"))
_PERSONS = {
    "me": "i",
    "him": "he",
    "her": "she",
    "us": "we",
    "them": "they",
    "i": "i",
    "you": "you",
    "he": "he",
    "she": "she",
}
_PERIODS = frozenset(
    listed(
        "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
        " september october november december"
    )
)


def order(a: Reading, b: Reading) -> Iterator[Difference]:
    """The words that stand in another order, or in another role, in the two questions."""
    said_a, said_b = _said(a), _said(b)
    if said_a == said_b:
        return
    left_a, left_b = _without_topic(a, b), _without_topic(b, a)
    found = (
        _moved(said_a, said_b, left_a, left_b)
        or (_turned_round(left_a, left_b) and _turned_round(_plain(a), _plain(b)))
        or _other_roles(said_a, said_b)
        or _names_and_numbers(a, b, said_a, said_b)
    )
    if found:
        yield Difference("order", *found)


@lru_cache(maxsize=KEPT)
def _plain(reading: Reading) -> list[str]:
    """The words without articles; signs are included."""
    return [t.low.removesuffix("'s") for t in reading.tokens if t.low not in ARTICLES]


@lru_cache(maxsize=KEPT)
def _said(reading: Reading) -> list[str]:
    """The same as `_plain`, but with "the price of the tent" as "tent price" (as in "the tent's price")."""
    words = list(_plain(reading))
    while "of" in words[1:-1]:
        at = words.index("of", 1)
        end = at + 1
        while end < len(words) and words[end] in _OWNERS:
            words.pop(end)
        while end < len(words) and words[end] not in GRAMMAR and words[end] not in _DIRECTED and words[end] != "of":
            end += 1
        if end == at + 1 or words[at - 1] in GRAMMAR:
            words[at : at + 1] = []
            continue
        words[at - 1 : end] = [*words[at + 1 : end], words[at - 1]]
    return words


def _carries(word: str) -> bool:
    return word not in GRAMMAR and word not in _DIRECTED and word != "only" and word[0].isalnum()


def _without_topic(reading: Reading, other: Reading) -> list[str]:
    """The words of a question, without a topic that only one of the two questions puts in front ("Oslo: …")."""
    front, behind = _topic(reading), _topic(other)
    topic = front ^ behind if not (front and behind) else frozenset()
    if topic and (any(w in _DIRECTED for w in reading.words) or any(w in _DIRECTED for w in other.words)):
        topic = frozenset()
    return [w for w in _said(reading) if w not in topic]


def _topic(reading: Reading) -> frozenset[str]:
    """The words before a second beginning of a sentence, if they are at most three: "order 1234: where is it?"."""
    begins = [i for i, t in enumerate(reading.tokens) if t.first]
    if len(begins) == 2 and begins[1] <= 3:
        return frozenset(t.low for t in reading.tokens[: begins[1]])
    return frozenset()


def _moved(said_a: list[str], said_b: list[str], left_a: list[str], left_b: list[str]) -> tuple[str, str] | None:
    """The same content words in another order.

    Not if the text is only rotated about one place.
    """
    # "from Paris to London" is "to London from Paris": each keeps its preposition.
    kept = {
        w for w in left_a if w in left_b and _before(said_a, w) == _before(said_b, w) and _before(said_a, w) in _DIRECTED
    }
    content_a, content_b = ([w for w in left if _carries(w) and w not in kept] for left in (left_a, left_b))
    if content_a == content_b or Counter(content_a) != Counter(content_b):
        return None
    if Counter(said_a) == Counter(said_b) and any(said_a[i:] + said_a[:i] == said_b for i in range(1, len(said_a))):
        return None
    return " ".join(content_a), " ".join(content_b)


def _turned_round(a: Sequence[str], b: Sequence[str]) -> tuple[str, str] | None:
    """Two content words that change sides about a third word: "Paris to London", "London to Paris"."""
    a, b = ([_PERSONS.get(w, stem(w)) for w in words] for words in (a, b))
    once_a, once_b = Counter(a), Counter(b)
    at = {word: i for i, word in enumerate(b) if once_b[word] == 1}
    shared = [word for word in a if once_a[word] == 1 and word in at]
    for i, left in enumerate(shared):
        if not (_carries(left) or left in _PERSONS):
            continue
        for j in range(i + 2, len(shared)):
            right = shared[j]
            if (_carries(right) or right in _PERSONS) and at[right] < at[left]:
                between = [w for w in shared[i + 1 : j] if at[right] < at[w] < at[left]]
                if between:
                    return f"{left} {between[0]} {right}", f"{right} {between[0]} {left}"
    return None


def _other_roles(a: Sequence[str], b: Sequence[str]) -> tuple[str, str] | None:
    """One preposition before two different words that both questions have: "from Paris", "from London".

    Also a passive sentence beside an active one in which the same person acts on the other side.
    """
    objects_a, objects_b = _objects(a), _objects(b)
    for word in sorted(objects_a.keys() & objects_b.keys()):
        one, other = objects_a[word], objects_b[word]
        if one != other and one in b and other in a:
            return f"{word} {one}", f"{word} {other}"
    for mine, theirs, words in ((objects_a, objects_b, b), (objects_b, objects_a, a)):
        # "Was Rome defeated by Carthage?" beside "Did Rome defeat Carthage?"
        agent = mine.get("by") if "by" not in theirs else None
        said = a if mine is objects_a else b
        if agent and agent in words and said[said.index("by") - 1].endswith(("ed", "en")):
            patients = [w for w in said[: said.index("by") - 1] if w in words and _carries(w)]
            if any(words.index(p) < words.index(agent) for p in patients):
                return " ".join(a), " ".join(b)
    return None


def _objects(said: Sequence[str]) -> dict[str, str]:
    """The first content word after each preposition of direction that occurs once."""
    counts = Counter(said)
    found = {}
    for i, word in enumerate(said):
        if word in _DIRECTED and counts[word] == 1:
            following = next((w for w in said[i + 1 : i + 4] if _carries(w)), None)
            if following:
                found[word] = following
    return found


def _names_and_numbers(a: Reading, b: Reading, said_a: Sequence[str], said_b: Sequence[str]) -> tuple[str, str] | None:
    """Two numbers, two names or two periods in reverse order, unless each keeps the preposition before it."""
    for sort in (_is_number, _is_somebody, _is_period):
        here, there = ([t.low.removesuffix("'s") for t in r.tokens if sort(t)] for r in (a, b))
        # A word at the beginning of a sentence counts as a name if it is a name in the other question.
        known = {*here, *there}
        if sort is _is_somebody:
            things = {w for w in known if w in said_a and w in said_b and _noun(said_a, w) == _noun(said_b, w) != ""}
            here, there = ([w for w in said if w in known - things] for said in (said_a, said_b))
        both = [w for w in here if here.count(w) == there.count(w) == 1]
        turned = [w for w in there if w in both]
        if both != turned and not all(_marked(said_a, w) == _marked(said_b, w) != "" for w in both):
            if sort is _is_somebody and _fronted(a, b):
                continue
            return " ".join(both), " ".join(turned)
        if not both and Counter(here) == Counter(there) and here != there:
            return " ".join(here), " ".join(there)
    return None


def _fronted(a: Reading, b: Reading) -> bool:
    return bool(_topic(a)) != bool(_topic(b))


def _before(said: Sequence[str], word: str) -> str:
    at = said.index(word) if word in said else 0
    return said[at - 1] if at else ""


def _marked(said: Sequence[str], word: str) -> str:
    before = _before(said, word)
    return before if before in _DIRECTED or before in ("in", "on", "at", "with", "about", "of") else ""


def _noun(said: Sequence[str], word: str) -> str:
    """The content word right after a name, which makes it the name of a thing: "the Toflo tent"."""
    following = said[said.index(word) + 1 :][:1]
    return following[0] if following and _carries(following[0]) else ""


def _is_number(token: Token) -> bool:
    return token.sort == "literal" or is_number_word(token.low)


def _is_somebody(token: Token) -> bool:
    return is_name(token) and token.low not in _PERIODS


def _is_period(token: Token) -> bool:
    return token.low in _PERIODS and token.text[0].isupper()
