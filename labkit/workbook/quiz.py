"""A question with one right answer, and the order in which its options are shown."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from labkit.workbook.exercise import ExerciseError

__all__ = ["Quiz"]


@dataclass(frozen=True, slots=True)
class Quiz:
    """A `question` with one right `answer`, and `why` it is right, which is said when it is chosen.

    `wrong` maps each other option to the reason why it is wrong, which is said when that is chosen. Raises `ExerciseError`
    when an option is doubled or lacks a reason, and when there is only one.
    """

    id: str
    question: str
    answer: str
    why: str
    wrong: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.answer in self.wrong or not self.wrong or not all(reason.strip() for reason in self.reasons.values()):
            raise ExerciseError(
                f"quiz {self.id}: give the answer, other options than {self.answer!r}, and for each why it is right or wrong"
            )

    @property
    def reasons(self) -> Mapping[str, str]:
        """Each option, and why it is right or wrong."""
        return {self.answer: self.why, **self.wrong}

    def shown(self, rng: random.Random) -> tuple[str, ...]:
        """The options in the order they are shown: numbers by size, yes before no, and all others shuffled by `rng`."""
        options = tuple(self.reasons)
        if {option.lower() for option in options} == {"yes", "no"}:
            return tuple(sorted(options, reverse=True, key=str.lower))
        try:
            return tuple(sorted(options, key=lambda option: float(option.replace(",", ""))))
        except ValueError:
            return tuple(rng.sample(options, len(options)))
