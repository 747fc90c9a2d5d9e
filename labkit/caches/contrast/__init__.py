"""The contrast check: what sets two questions apart that look alike. It examines a hit after the vectors have found it.

Embeddings put "Can I …?" beside "Can't I …?", and order 1234 beside 1243, because these questions are *about* the same
thing. Whether they deserve the same answer depends on a few words and signs, which can be compared one by one:

- **literals**: numbers, in figures or words, and everything else with a digit in it; the same ones must occur equally often;
- **symbols**: signs, operators, emoji ("-40" and "40", "x > 5" and "x < 5");
- **units** and currencies: kg and pounds, $ and €, MB and Mb;
- **names**: words with a capital, except at the beginning of a sentence; abbreviations;
- **negation**: one question is negated and the other is not;
- **opposites** and rivals: one says "before", the other "after"; one says red, the other blue;
- **qualifiers**: one question is restricted ("online", "only", "without …") and the other is not;
- **order**: the same words in other roles ("from Paris to London", "from London to Paris");
- **exchange**: word for word the same, except for one or two words in one place;
- **language**, **length**: if the words cannot be weighed (in any language but English, in a long text), only a question in
  the same words passes.

All of this works on the surface, on words and signs, without a parser. It refuses some honest paraphrases, which costs money
(a miss), so that few wrong answers pass, which would cost more. What the check cannot see is left to the score;
`labkit.caches.acceptance` learns from the answers how far the score can be trusted.
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
_HUGE = 10_000  # characters; taking apart a longer text takes too long for a look-up, so only equal words pass
_ALWAYS: tuple[_Check, ...] = (literals, symbols, units, names, negation, opposites, qualifiers)


def differences(cached: str, new: str) -> tuple[Difference, ...]:
    """Reasons why the answer to `cached` may be wrong for `new`; empty if nothing on the surface says so.

    Greetings and thanks are ignored, and so is letter case outside names and units.
    """
    if max(len(cached), len(new)) > _HUGE:
        same = cached.split() == new.split()
        return () if same else (Difference("length", f"{len(cached)} characters", f"{len(new)} characters"),)
    a, b = read(cached), read(new)
    # If only the same words pass, `order` and `exchange` cannot add anything, and on a long text they are slow.
    last: tuple[_Check, ...] = (wording,) if only_the_same_words(a, b) else (order, exchange)
    return tuple(found for check in (*_ALWAYS, *last) for found in check(a, b))
