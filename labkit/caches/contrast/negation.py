"""Whether one question is negated and the other is not."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.caches.contrast.difference import Difference
from labkit.caches.contrast.english import CONTRACTIONS, stem
from labkit.caches.contrast.foreign import NEGATIONS, NEGATIONS_CJK, is_cjk
from labkit.caches.contrast.lists import listed
from labkit.caches.contrast.reading import Reading

_ENGLISH = frozenset(
    listed("not never no cannot none impossible nobody nothing nowhere neither nor unable without hardly scarcely")
)
_PREFIXES = ("un", "dis", "non", "mis", "de")
_TURNING = (*_PREFIXES, "in", "im", "il", "ir", "ex", "down")
# Before words with these endings, "in" denies (inactive); before others it does not (inform).
_ADJECTIVES = ("abl", "ibl", "al", "act", "ect", "ent", "ant", "iv", "at", "et", "id", "ar", "ur", "it", "il")


def negation(a: Reading, b: Reading) -> Iterator[Difference]:
    """One question has an odd number of denials, and the other an even number, since two denials make a yes.

    A word with a denying prefix (unsafe, illegal, decrypt) counts if the other question has the word without the prefix.
    """
    denied = _denials(a, b), _denials(b, a)
    if len(denied[0]) % 2 != len(denied[1]) % 2:
        yield Difference("negation", " ".join(denied[0]), " ".join(denied[1]))


def is_denial(word: str) -> bool:
    """Whether an English word (lower case) denies by itself."""
    return word in _ENGLISH or word in CONTRACTIONS or word.endswith("n't")


def _denials(reading: Reading, other: Reading) -> list[str]:
    words, others = reading.words, {stem(w) for w in other.words}
    if reading.language != "en":
        if is_cjk(reading.language) or reading.language == "ko":
            return NEGATIONS_CJK.findall("".join(words))
        return [w for w in words if w in NEGATIONS or w in _ENGLISH]
    own = {stem(w) for w in words}
    return [w for w in words if is_denial(w) or _turned(stem(w), own, others)]


def _turned(word: str, own: set[str], others: set[str]) -> bool:
    """Whether `word` is a denying prefix plus a word that the other question says and this one does not."""
    if not word.startswith(_TURNING):
        return False
    for prefix in _PREFIXES:
        bare = word.removeprefix(prefix).removeprefix("-")
        if (
            bare != word
            and len(bare) >= (3 if prefix in ("un", "non", "dis") else 4)
            and bare in others
            and bare not in own
            and word not in others
        ):
            return True
    for prefix in ("in", "im", "il", "ir"):
        bare = word.removeprefix(prefix)
        if bare != word and bare.endswith(_ADJECTIVES) and bare in others and bare not in own and word not in others:
            return True
    for twin, turned in (("en", "de"), ("en", "dis"), ("in", "ex"), ("im", "ex"), ("in", "de"), ("up", "down")):
        if word.startswith(turned) and len(word) > len(turned) + 2:
            bare = twin + word.removeprefix(turned)
            if bare in others and word not in others and bare not in own:
                return True
    return False
