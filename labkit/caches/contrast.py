"""What sets two questions apart that look alike: the second look at a hit, after the vectors.

Embeddings put "Can I …?" beside "Can't I …?" and order 1234 beside 1243, because they are *about* the same. Whether they
deserve the same answer is decided by a few words, and those can be compared one by one:

- **literals**: numbers, and anything with a digit in it (order numbers, dates, prices), in what they are and how often;
- **names**: words with a capital, other than abbreviations and those that begin a sentence;
- **negation**: one is negated and the other is not;
- **opposites**: one says "before", the other "after" (`OPPOSITES`);
- **qualifiers**: one restricts what it asks ("online", "only", "without …") and the other does not (`QUALIFIERS`);
- **exchange**: word for word the same, but for one or two words in one place. People who put a question differently rarely
  change so little; people who ask another question often do.

All of it is surface: English words, no parser. It refuses some honest paraphrases (a miss, which costs money) so that it
lets few wrong answers through (which cost more). What it cannot see is left to the score; `labkit.caches.acceptance` learns
from the answers how far that can be trusted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["literal", "name", "negation", "opposite", "qualifier", "exchange"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A reason why two questions deserve different answers: what kind it is, and the words on either side."""

    kind: Kind
    cached: str
    new: str

    def __str__(self) -> str:
        return f"{self.kind}: “{self.cached or '(nothing)'}” in the cached question, “{self.new or '(nothing)'}” in the new"


# Groups of words of which a question means one or the other. General English, as a team would collect it for its own desk.
OPPOSITES: Sequence[Sequence[frozenset[str]]] = [
    [frozenset(side.split()) for side in group.split(" | ")]
    for group in (
        "before until | after once since",
        "first earliest | last latest final",
        "minimum min least smallest lowest | maximum max most largest highest",
        "open opens opened opening | close closes closed closing sealed unopened",
        "with | without",
        "buy buying purchase purchasing | rent renting hire hiring borrow borrowing | sell selling",
        "adult adults | child children kid kids",
        "public visible | private hidden",
        "show publish | hide",
        "new unused | used old second-hand pre-owned secondhand",
        "more increase higher raise up | less fewer decrease lower reduce down",
        "start begin begins join activate enable subscribe | stop end ends leave quit deactivate disable unsubscribe",
        "early earlier sooner | late later",
        "light lighter lightest lightweight | heavy heavier heaviest",
        "add include included | remove exclude excluded delete",
        "cheap cheaper cheapest | expensive dearer dearest",
        "fast faster fastest | slow slower slowest",
        "in | out", "on | off", "always | never", "all every | only some", "accept | refuse reject", "lock | unlock",
        "kg kilos kilograms | pounds lb lbs", "metres meters m | feet ft foot", "km kilometres | miles",
        "celsius | fahrenheit", "euros euro eur | dollars dollar usd", "man men | woman women", "yes | no",
    )
]  # fmt: skip
# Words that restrict a question; one side without any word of the group asks for something wider.
QUALIFIERS: Mapping[str, str] = {
    word: name
    for name, words in (
        ("web", "online website web app internet"),
        ("shop", "store shop person"),
        ("only", "only sale except just"),
        ("all", "all every any"),
        ("before", "before until"),
        ("after", "after once"),
        ("later", "later afterwards"),
        ("without", "without"),
        ("first", "first"),
        ("last", "last"),
        ("again", "again twice"),
    )
    for word in words.split()
}
_ASKING = frozenset(  # words that change nothing where they stand for one another
    ("can", "could", "may", "might", "would", "should", "do", "does", "did", "is", "are", "will", "i", "you")
)
_EXCHANGED = 2  # words at most
_NEGATIONS = frozenset(
    ("not", "never", "no", "cannot", "impossible", "nobody", "nothing", "nowhere", "neither", "nor", "unable", "without")
)
_POLITE = re.compile(
    r"^(?:(?:hi|hello|hey|hey there|good (?:morning|afternoon|evening|day)|dear \w+|quick question)\s*[,.:!]\s*"
    r"|i (?:could not|couldn't|did not|didn't) find (?:out )?)+"
    r"|(?:\s*(?:thanks|thank you|please hurry|cheers|regards|bye)(?: a lot| so much| very much)?\s*[.!,]*)+$",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w*\d(?:[\w.,/:-]*\w)?|\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+")


def differences(cached: str, new: str) -> tuple[Difference, ...]:
    """Why the answer to `cached` may be wrong for `new`; empty where nothing on the surface says so.

    Greetings and thanks are left out, and letter case outside names.
    """
    return tuple(_differences(_plain(cached), _plain(new)))


def _differences(cached: str, new: str) -> Iterator[Difference]:
    a, b = _words(cached), _words(new)
    digits_a, digits_b = _literals(a), _literals(b)
    if digits_a != digits_b:
        yield Difference("literal", _only(digits_a, digits_b), _only(digits_b, digits_a))
    # A name that begins a sentence is not told from other words there, so it is looked for among all of them.
    names_a, names_b = _names(cached) - _stems(b), _names(new) - _stems(a)
    if names_a or names_b:
        yield Difference("name", " ".join(sorted(names_a)), " ".join(sorted(names_b)))
    low_a, low_b = [w.lower() for w in a], [w.lower() for w in b]
    denied = [[w for w in words if _denies(w)] for words in (low_a, low_b)]
    if len(denied[0]) % 2 != len(denied[1]) % 2:
        yield Difference("negation", " ".join(denied[0]), " ".join(denied[1]))
    set_a, set_b = frozenset(low_a), frozenset(low_b)
    for group in OPPOSITES:
        for side in group:
            for other in group:
                if side is not other and set_a & side and set_b & other and not (set_a & other) and not (set_b & side):
                    yield Difference("opposite", " ".join(sorted(set_a & side)), " ".join(sorted(set_b & other)))
    narrow_a, narrow_b = _qualifiers(low_a), _qualifiers(low_b)
    if narrow_a.keys() != narrow_b.keys():
        yield Difference(
            "qualifier",
            " ".join(word for name, word in narrow_a.items() if name not in narrow_b),
            " ".join(word for name, word in narrow_b.items() if name not in narrow_a),
        )
    exchanged = _exchanged(low_a, low_b)
    if exchanged is not None:
        yield Difference("exchange", *exchanged)


def _plain(text: str) -> str:
    return _POLITE.sub("", _POLITE.sub("", text.strip()))


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text)]


def _literals(words: Sequence[str]) -> Counter[str]:
    return Counter(word.lower() for word in words if any(c.isdigit() for c in word))


def _names(text: str) -> frozenset[str]:
    """Words with a capital that do not begin a sentence; abbreviations and literals are none."""
    inside = [word for sentence in _SENTENCE.split(text) for word in _words(sentence)[1:]]
    return _stems(
        word
        for word in inside
        if word[0].isupper() and not word.split("'")[0].isupper() and not any(c.isdigit() for c in word)
    )


def _stems(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word.lower().removesuffix("'s") for word in words)


def _denies(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't")


def _qualifiers(words: Sequence[str]) -> dict[str, str]:
    return {QUALIFIERS[word]: word for word in words if word in QUALIFIERS}


def _exchanged(a: Sequence[str], b: Sequence[str]) -> tuple[str, str] | None:
    """The words that stand in the place of others, where all the rest is the same and in the same order."""
    changes = [op for op in SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op[0] != "equal"]
    if len(changes) != 1 or changes[0][0] != "replace":
        return None
    _, i, j, k, m = changes[0]
    if max(j - i, m - k) > _EXCHANGED or max(j - i, m - k) * 2 > min(len(a), len(b)) or {*a[i:j], *b[k:m]} <= _ASKING:
        return None
    return " ".join(a[i:j]), " ".join(b[k:m])


def _only(these: Counter[str], those: Counter[str]) -> str:
    return " ".join((these - those).elements())
