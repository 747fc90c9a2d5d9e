"""What each chapter asks of the learner: its exercises and questions, and the ids of its predictions and claims.

Each chapter has one module, `cNN.py`, that exports `CHAPTER`; its questions are in `qNN.py`. A chapter's prose and
code are in `notebooks/src/NN_name.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass

from labkit.workbook.exercise import Exercise, ExerciseError
from labkit.workbook.quiz import Quiz

__all__ = ["Chapter", "chapter", "chapters"]


@dataclass(frozen=True, slots=True)
class Chapter:
    """The declared contents of one chapter. `number` is two digits; `name` completes the notebook's file name.

    `quizzes` are asked at its end; warm-ups of later chapters ask these and the `bank`. `needs` are what its measurements
    need of an engine, of those in `labkit.workbook.needs`.

    Raises `ExerciseError` for a number that is not two digits, and for ids that are doubled or belong to another chapter.
    """

    number: str
    name: str
    title: str
    exercises: tuple[Exercise, ...] = ()
    predictions: tuple[str, ...] = ()
    quizzes: tuple[Quiz, ...] = ()
    claims: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("answers",)
    bank: tuple[Quiz, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d\d", self.number):
            raise ExerciseError(f"chapter number {self.number!r} must be two digits, as in '03'")
        exercises, questions = (e.id for e in self.exercises), (q.id for q in (*self.quizzes, *self.bank))
        ids = [*exercises, *questions, *self.predictions, *self.claims]
        foreign = [i for i in ids if not i.startswith(f"{self.number}.")]
        if foreign:
            raise ExerciseError(
                f"chapter {self.number} declares {', '.join(foreign)}; its ids must start with '{self.number}.'"
            )
        double = sorted({i for i in ids if ids.count(i) > 1})
        if double:
            raise ExerciseError(f"chapter {self.number} declares {', '.join(double)} twice")

    @property
    def notebook(self) -> str:
        """The notebook's file name without its ending."""
        return f"{self.number}_{self.name}"

    def exercise(self, id: str) -> Exercise:
        """The exercise with that id. For an unknown id, raises `ExerciseError` that lists the known ones."""
        for exercise in self.exercises:
            if exercise.id == id:
                return exercise
        there = ", ".join(e.id for e in self.exercises) or "none"
        raise ExerciseError(f"chapter {self.number} has no exercise {id!r}; its exercises are {there}")

    def quiz(self, id: str) -> Quiz:
        """The quiz question with that id. For an unknown id, raises `ExerciseError` that lists the known ones."""
        for quiz in self.quizzes:
            if quiz.id == id:
                return quiz
        there = ", ".join(q.id for q in self.quizzes) or "none"
        raise ExerciseError(f"chapter {self.number} has no quiz question {id!r}; its questions are {there}")


def chapters() -> tuple[Chapter, ...]:
    """All chapters that exist, in order."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if re.fullmatch(r"c\d\d", m.name))
    return tuple(_load(name) for name in names)


def chapter(number: str) -> Chapter:
    """The chapter with that two-digit number. Raises `ExerciseError` when there is none."""
    there = sorted(m.name for m in pkgutil.iter_modules(__path__) if re.fullmatch(r"c\d\d", m.name))
    if f"c{number}" not in there:
        raise ExerciseError(f"there is no chapter {number!r}; chapters are {', '.join(n[1:] for n in there) or 'none'}")
    return _load(f"c{number}")


def _load(module: str) -> Chapter:
    found = importlib.import_module(f"{__name__}.{module}").CHAPTER
    if not isinstance(found, Chapter):
        raise ExerciseError(f"{__name__}.{module} must define CHAPTER as a Chapter, not {type(found).__name__}")
    return found
