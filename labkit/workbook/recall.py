"""Which questions of earlier chapters come back at the start of a chapter, so that they are still known a month later.

Recalling something just as it begins to fade is what makes it stay (Cepeda et al. 2006, "Distributed practice in verbal
recall tasks"), so a question comes back at growing intervals. They are those of SM-2 (Wozniak 1990, "Optimization of
learning"): a day after the first right answer, 6 days after the second, then 2.5 times as long each time. As in Leitner's
boxes (1972, "So lernt man lernen"), a wrong answer sends a question back to the first box, whose questions are due at once;
and a right answer given before a question is due leaves it in its box.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labkit.workbook.quiz import Quiz
from labkit.workbook.store import Journal

__all__ = ["REVIEW", "Asked", "answers_of", "choose", "due_at", "interval_s", "visited"]

REVIEW = "review"  # the kind of journal entry that a first try at the start of a chapter leaves
_DAY_S = 24 * 60 * 60.0
_FIRST_S, _SECOND_S, _FACTOR = 1 * _DAY_S, 6 * _DAY_S, 2.5
_WORK = ("commit", "check", "quiz")  # kinds of entries that only a learner's own work leaves
Answer = tuple[float, bool]  # when, in seconds since 1970; and whether it was right


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that may come back, and the number of its chapter."""

    chapter: str
    quiz: Quiz


def interval_s(box: int) -> float:
    """Seconds from a right answer that put a question into a box until it is due again; box 0 is due at once."""
    if box == 0:
        return 0.0
    return _FIRST_S if box == 1 else _SECOND_S * _FACTOR ** (box - 2)


def due_at(answers: Iterable[Answer]) -> float:
    """When a question is due again, in seconds since 1970, after these answers in their order. Without any, at once (0)."""
    box, due = 0, 0.0
    for at, right in answers:
        box = 0 if not right else box + (at >= due)
        due = at + interval_s(box)
    return due


def answers_of(journal: Journal) -> dict[str, list[Answer]]:
    """For each question's id the answers that count: the first try at its chapter's quiz, and of each time it came back."""
    found: dict[str, list[Answer]] = {}
    tried: set[str] = set()
    for entry in journal.entries():
        again = entry["kind"] == "quiz" and entry["item"] in tried
        if entry["kind"] == REVIEW or (entry["kind"] == "quiz" and not again):
            found.setdefault(entry["item"], []).append((float(entry["at"]), bool(entry["ok"])))
        if entry["kind"] == "quiz":
            tried.add(entry["item"])
    return found


def visited(journal: Journal) -> frozenset[str]:
    """The numbers of the chapters in which the learner has predicted, tried an exercise, or answered the quiz."""
    return frozenset(e["item"][:2] for e in journal.entries() if e["kind"] in _WORK and not e.get("blank", False))


def choose(
    questions: Sequence[Asked],
    answers: Mapping[str, Sequence[Answer]],
    visited: frozenset[str],
    now: float,
    rng: random.Random,
    count: int = 2,
) -> tuple[Asked, ...]:
    """The `count` questions to ask at `now` (seconds since 1970), or all where there are fewer.

    One that was answered before and is due goes first, the longest due one. Then a new one: of a chapter that the learner
    has worked in, or where none is left, of another; which of them is drawn by `rng`. So what went wrong comes back soon,
    and yet every question gets its turn. Where there is none that is due, both are new; where there is none that is new,
    both are those due earliest. No two are of one chapter while there is another.
    """
    shuffled = rng.sample(questions, len(questions))
    known = sorted((q for q in shuffled if q.quiz.id in answers), key=lambda q: due_at(answers[q.quiz.id]))
    due = [q for q in known if due_at(answers[q.quiz.id]) <= now]
    later = known[len(due) :]
    new = sorted((q for q in shuffled if q.quiz.id not in answers), key=lambda q: q.chapter not in visited)
    chosen: list[Asked] = []
    while len(chosen) < min(count, len(questions)):
        order = [*due, *new, *later] if not chosen else [*new, *due, *later]
        left = [q for q in order if q not in chosen]
        taken = {q.chapter for q in chosen}
        chosen.append(next((q for q in left if q.chapter not in taken), left[0]))
    return tuple(chosen)
