"""Conditions that tell when an answer has said enough: functions of the text so far, as values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from inspect import iscoroutinefunction

from labkit.request import InvalidValue
from labkit.streaming.after_prose import AfterProse
from labkit.streaming.partial_json import Final

Condition = Callable[[str], bool]
"""Whether to stop, from the text so far."""


def checked(what: str, condition: object) -> None:
    """Raise `InvalidValue` for a `condition` that cannot be called at every chunk; `what` names who was given it."""
    if isinstance(condition, type):
        raise InvalidValue(f"{what} takes a condition; {condition.__name__} is a class: make one, as in EnoughWords(8)")
    if iscoroutinefunction(condition):
        raise InvalidValue(
            f"{what} asks its condition at every chunk and cannot await it; make {condition!r:.80} a plain def"
        )
    if not callable(condition):
        raise InvalidValue(
            f"{what} takes a condition, such as EnoughWords(8) or a function of the text so far, not {condition!r:.80}"
        )


@dataclass(frozen=True)
class AnyOf:
    """Stop when one of its conditions holds; they are asked in their order, up to the first that does."""

    conditions: tuple[Condition, ...]

    def __init__(self, *given: Condition, conditions: Iterable[Condition] = ()) -> None:
        """Write `AnyOf(a, b)`; the keyword `conditions` is for `dataclasses.replace` and for settings read from files.

        Raises `InvalidValue` without a condition and for one that cannot be called at every chunk.
        """
        found = (*given, *conditions)
        if not found:
            raise InvalidValue("AnyOf was given no condition, so it would never hold; give it one or more")
        for condition in found:
            checked("AnyOf", condition)
        object.__setattr__(self, "conditions", found)

    def __call__(self, text: str) -> bool:
        """Whether one of the conditions holds."""
        return any(condition(text) for condition in self.conditions)

    def __repr__(self) -> str:
        return f"AnyOf({', '.join(map(repr, self.conditions))})"


@dataclass(frozen=True)
class EnoughWords:
    """Stop once `limit` words are whole; the last word is whole once white space follows it."""

    limit: int

    def __post_init__(self) -> None:
        if not _count(self.limit, 1):
            raise InvalidValue(f"limit is {self.limit!r} words; allow 1 or more, a whole number")

    def __call__(self, text: str) -> bool:
        """Whether at least `limit` words are whole."""
        return len(text.split()) - (bool(text) and not text[-1].isspace()) >= self.limit


@dataclass(frozen=True)
class Said:
    """Stop once the regular expression `pattern` is found: a label, a verdict, an end mark."""

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise InvalidValue(f"pattern is {self.pattern!r:.80}; give a regular expression as a text")
        try:
            compiled = re.compile(self.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidValue(f"{self.pattern!r} is no regular expression: {error}") from error
        object.__setattr__(self, "_compiled", compiled)

    def __call__(self, text: str) -> bool:
        """Whether `pattern` is found."""
        return self._compiled.search(text) is not None


@dataclass(frozen=True)
class Gone:
    """Stop once the reader has left, as `is_gone()` tells; this is asked at each chunk, so never before the first."""

    is_gone: Callable[[], bool]

    def __post_init__(self) -> None:
        if not callable(self.is_gone):
            raise InvalidValue(f"Gone takes a function that tells whether the reader has left, not {self.is_gone!r:.80}")

    def __call__(self, _: str) -> bool:
        """Whether the reader has left."""
        return self.is_gone()


@dataclass(frozen=True)
class JsonComplete:
    """Stop once the JSON document in the text is whole; prose before it is skipped (as `AfterProse` does)."""

    def __call__(self, text: str) -> bool:
        """Whether the document is whole."""
        if "}" not in text and "]" not in text:
            return False
        return any(isinstance(found, Final) and found.path == () for found in AfterProse().feed(text))


@dataclass(frozen=True)
class Repeating:
    """Stop once the text ends in one passage repeated `times` times: a loop that a greedy model never leaves.

    A loop counts only if its repetitions have `at_least` characters in all; otherwise the ruled line of a table would count.
    A passage may have up to `longest` characters. One shorter than `at_least` / `times` is looked for as a longer passage
    made of several of it, so its loop may be found a little later. White space alone does not count.
    """

    times: int = 4
    at_least: int = 60
    longest: int = 400

    def __post_init__(self) -> None:
        if not (_count(self.times, 2) and _count(self.at_least, 1) and _count(self.longest, 1)):
            raise InvalidValue(
                f"times={self.times!r}, at_least={self.at_least!r}, longest={self.longest!r}; "
                "use whole numbers from 2, 1 and 1"
            )

    def __call__(self, text: str) -> bool:
        """Whether the text ends in such a loop."""
        shortest = -(-self.at_least // self.times)
        if len(text) < self.times * shortest:
            return False
        tail = text[-shortest:]
        first = len(text) - shortest - min(self.longest, len(text) // self.times)
        # A passage can only end where the text's last characters also stood before, so only those places are tried. Trying
        # every size at every chunk would cost more than all the rest of the stream.
        at = text.rfind(tail, max(0, first), len(text) - shortest)
        while at >= 0:
            passage = text[at + shortest :]
            if passage.strip() and text.endswith(passage * self.times):
                return True
            at = text.rfind(tail, max(0, first), at + shortest - 1)
        return False


def _count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
