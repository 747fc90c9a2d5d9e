"""Which protected texts are missing from another text that was written in place of the first: a summary, an answer."""

from __future__ import annotations

from collections.abc import Iterable

from labkit.shrink.protect import Protect


def missing(protect: Protect, told: Iterable[str], summary: str) -> tuple[str, ...]:
    """The protected texts of `told` that are not in `summary`, each once, in order.

    A text counts as there only where it stands by itself: "4" is not in "40", nor is "Ann" in "Annual".
    """
    facts = dict.fromkeys(text[start:end].strip() for text in told for start, end in protect.spans(text))
    return tuple(fact for fact in facts if fact and not stands(fact, summary))


def stands(fact: str, text: str) -> bool:
    """Whether `fact` is in `text` and not merely a part of a longer number or word there."""
    at = text.find(fact)
    while at >= 0:
        end = at + len(fact)
        if not _runs_on(text[at - 1 : at], fact[0]) and not _runs_on(fact[-1], text[end : end + 1]):
            return True
        at = text.find(fact, at + 1)
    return False


def _runs_on(left: str, right: str) -> bool:
    """Whether two neighbours make one number or one word; scripts that are written without blanks never do."""
    return (left.isdecimal() and right.isdecimal()) or (_cased(left) and _cased(right))


def _cased(letter: str) -> bool:
    return letter.lower() != letter.upper()
