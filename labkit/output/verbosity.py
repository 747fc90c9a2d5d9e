"""How much the model is asked to say, and whether it does as it is asked.

A cap cuts; an instruction asks the model to finish sooner. It is behind the part of the prompt that requests share, so that
the engine's prefix cache keeps that part whichever level is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from labkit.output.asking import Where, asked_as, check_where, told
from labkit.output.lengths import wilson
from labkit.request import Handler, InvalidValue, Lever, Request, is_whole
from labkit.routing import Interval

Level = Literal["brief", "normal", "detailed"]
WORDINGS = {
    "brief": "Answer briefly.",
    "normal": "",
    "detailed": "Answer in detail.",
}
"""What each level tells the model; "normal" says nothing."""


@dataclass(frozen=True)
class Verbosity(Lever):
    """Tell the model how much to say: a `level`, or at most so many `words`, or both, or an instruction of one's own.

    `wording` takes the place of the level's own text, for a model that was taught other words. `where` says at the end of
    which message the instruction stands: the system prompt, or the last message. Take "last" for a level that changes within
    a conversation: an instruction in the system prompt stands in front of all turns, and a new one makes the engine read
    them all again. A level of "normal" without words sends requests on as they are.
    """

    level: Level = "brief"
    words: int | None = None
    where: Where = "system"
    wording: str | None = None

    def __post_init__(self) -> None:
        if self.level not in WORDINGS:
            raise InvalidValue(f"level is {self.level!r:.40}; use one of {', '.join(WORDINGS)}")
        if self.words is not None and not is_whole(self.words, 1):
            raise InvalidValue(f"words is {self.words!r:.40}; use None for no limit or a whole number from 1")
        check_where(self.where)

    @property
    def instruction(self) -> str:
        """The text that the model gets, "" for none."""
        said = WORDINGS[self.level] if self.wording is None else self.wording
        most = "" if self.words is None else f"Answer in at most {self.words} words."
        return " ".join(part for part in (said, most) if part)

    def asking(self, request: Request) -> Request:
        """`request` with the instruction in its place."""
        return told(request, self.instruction, self.where) if self.instruction else request

    def over(self, inner: Handler) -> Handler:
        """`inner`, told how much to say."""
        return asked_as(inner, self.asking, f"verbosity={self.level}")


def words_of(text: str) -> int:
    """The words of an answer: runs of anything but white space."""
    return len(text.split())


@dataclass(frozen=True, slots=True)
class Obedience:
    """How answers kept to a limit of words: the share that did, and the words got for each word asked (mean and median)."""

    asked: int
    kept: Interval
    mean_words: float
    median_words: float

    @property
    def ratio(self) -> float:
        """Mean words got for each word asked for."""
        return self.mean_words / self.asked


def obedience(texts: Iterable[str], words: int, level: float = 0.95) -> Obedience:
    """Whether answers that were asked for at most so many `words` kept to that; Wilson's interval for the share that did.

    Raises `InvalidValue` without an answer, and for a limit below 1.
    """
    counts = [words_of(text) for text in texts]
    if not counts or not is_whole(words, 1):
        raise InvalidValue(f"{len(counts)} answers to a limit of {words!r:.40} words; give at least one of each")
    kept = sum(count <= words for count in counts)
    interval = Interval(kept / len(counts), *wilson(kept, len(counts), level), level)
    return Obedience(words, interval, fmean(counts), median(counts))
