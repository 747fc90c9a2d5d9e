"""How far a learner is, from the journal: the table that a notebook's `book.progress()` and `labkit progress` show."""

from __future__ import annotations

from labkit.extras import extra
from labkit.workbook.chapters import Chapter, chapter, chapters
from labkit.workbook.paths import state_dir
from labkit.workbook.prediction import reset, standing
from labkit.workbook.recall import REVIEW
from labkit.workbook.render import table_text
from labkit.workbook.store import JOURNAL, Journal

CAPTION = "Your progress"
HEADER = ("chapter", "exercises", "predictions", "quiz, first try", "remembered in warm-ups")


def progress_rows(journal: Journal) -> list[tuple[str, str, str, str, str]]:
    """One row for each chapter, with the columns of `HEADER`.

    They count exercises passed, predictions scored, quiz questions that were right at the first try, and of the chapter's
    questions that came back in later chapters, those that were right the last time. Raises `MissingExtra` where the chapters
    cannot be imported without the extra "workbook".
    """
    with extra("workbook"):
        return [_row(journal, contents) for contents in chapters()]


def progress_text() -> str:
    """The table of this user's own journal as text. Raises `RepositoryNotFound` away from the clone."""
    return table_text(HEADER, progress_rows(Journal(state_dir() / JOURNAL)), CAPTION)


def reset_chapter(number: str) -> str:
    """Open the predictions of the chapter of a two-digit `number` again, in this user's journal; returns what was done.

    Raises `ExerciseError` for an unknown chapter.
    """
    with extra("workbook"):
        contents = chapter(number)
    reset(Journal(state_dir() / JOURNAL), contents.predictions)
    return f"chapter {number}: {len(contents.predictions)} predictions are open again"


def _row(journal: Journal, contents: Chapter) -> tuple[str, str, str, str, str]:
    passed = {e["item"] for e in journal.entries("check") if e["ok"]}
    first: dict[str, bool] = {}
    for tried in journal.entries("quiz"):
        first.setdefault(tried["item"], tried["ok"])
    came_back = {e["item"]: e["ok"] for e in journal.entries(REVIEW) if e["item"].startswith(f"{contents.number}.")}
    states = {id: standing(journal, id) for id in contents.predictions}
    return (
        f"{contents.number} · {contents.title}",
        _bar(sum(e.id in passed for e in contents.exercises), len(contents.exercises)),
        _bar(sum(s.revealed and s.guess is not None for s in states.values()), len(states)),
        _bar(sum(first.get(q.id, False) for q in contents.quizzes), len(contents.quizzes)),
        _bar(sum(came_back.values()), len(came_back)) if came_back else "-",
    )


def _bar(done: int, total: int) -> str:
    return f"{'■' * done}{'□' * (total - done)} {done}/{total}"
