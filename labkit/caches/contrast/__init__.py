"""What sets two questions apart that look alike: the second look at a hit, after the vectors.

Embeddings put "Can I …?" beside "Can't I …?" and order 1234 beside 1243, because they are *about* the same. Whether they
deserve the same answer is decided by a few words and signs, and those can be compared one by one:

- **literals**: numbers, in figures or words, and anything with a digit in it, in what they are and how often;
- **symbols**: signs, operators, emoji ("-40" and "40", "x > 5" and "x < 5");
- **units** and currencies: kg and pounds, $ and €, MB and Mb;
- **names**: words with a capital, other than those that begin a sentence; abbreviations;
- **negation**: one is negated and the other is not;
- **opposites** and rivals: one says "before", the other "after"; one red, the other blue;
- **qualifiers**: one restricts what it asks ("online", "only", "without …") and the other does not;
- **order**: the same words in other roles ("from Paris to London", "from London to Paris");
- **exchange**: word for word the same, but for one or two words in one place;
- **language**, **length**: where the words cannot be weighed (any language but English, a long text), only the same words
  are served.

All of it is surface: words and signs, no parser. It refuses some honest paraphrases (a miss, which costs money) so that it
lets few wrong answers through (which cost more). What it cannot see is left to the score; `labkit.caches.acceptance` learns
from the answers how far that can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labkit.caches.contrast.difference import Difference, Kind
from labkit.caches.contrast.exchange import exchange
from labkit.caches.contrast.names import names
from labkit.caches.contrast.negation import negation
from labkit.caches.contrast.numbers import literals
from labkit.caches.contrast.opposites import opposites
from labkit.caches.contrast.order import order
from labkit.caches.contrast.qualifiers import qualifiers
from labkit.caches.contrast.reading import Reading, read
from labkit.caches.contrast.symbols import symbols
from labkit.caches.contrast.units import units
from labkit.caches.contrast.wording import only_the_same_words, wording

__all__ = ["Difference", "Kind", "differences"]

_Check = Callable[[Reading, Reading], Iterator[Difference]]
_HUGE = 10_000  # characters; beyond, taking a text apart takes longer than a look-up may, and only equal words pass
_ALWAYS: tuple[_Check, ...] = (literals, symbols, units, names, negation, opposites, qualifiers)


def differences(cached: str, new: str) -> tuple[Difference, ...]:
    """Why the answer to `cached` may be wrong for `new`; empty where nothing on the surface says so.

    Greetings and thanks are left out, and letter case outside names and units.
    """
    if max(len(cached), len(new)) > _HUGE:
        same = cached.split() == new.split()
        return () if same else (Difference("length", f"{len(cached)} characters", f"{len(new)} characters"),)
    a, b = read(cached), read(new)
    # Where only the same words may be served, nothing is left for the others to say, and in a long text they take long.
    last: tuple[_Check, ...] = (wording,) if only_the_same_words(a, b) else (order, exchange)
    return tuple(found for check in (*_ALWAYS, *last) for found in check(a, b))
