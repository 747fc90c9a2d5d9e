"""Every chapter there is, found by itself: its shape, its committed notebooks, and the proof of its exercises."""

from typing import Any

import jupytext
import pytest

from labkit.workbook.build import main, solution_of, sources, stub_of
from labkit.workbook.chapters import chapter
from labkit.workbook.exercise import Exercise, run_check
from labkit.workbook.shape import problems

SOURCES = sources()
EXERCISES = [
    pytest.param(path, exercise, id=exercise.id) for path in SOURCES for exercise in chapter(path.stem[:2]).exercises
]


def answer_of(path: Any, exercise: Exercise, make: Any) -> Any:
    """What the exercise's cell defines, after the chapter's cells tagged `imports` alone."""
    cells = jupytext.read(path, fmt="py:percent").cells
    code = [cell.source for cell in cells if "imports" in cell.metadata.get("tags", ())]
    code += [make(cell.source) for cell in cells if cell.metadata.get("exercise") == exercise.id]
    names: dict[str, Any] = {"__name__": "__main__"}
    for part in code:
        exec(compile(part, f"<exercise {exercise.id}>", "exec"), names)
    return names[exercise.answer]


def test_there_are_chapters():
    assert SOURCES


def test_the_committed_notebooks_are_what_their_sources_say_and_hold_no_outputs():
    assert main(["--check"]) == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_chapter_has_its_bones(path):
    assert problems(path.read_text(encoding="utf-8"), chapter(path.stem[:2])) == []


@pytest.mark.parametrize(("path", "exercise"), EXERCISES)
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_passes(path, exercise, seed):
    verdict = run_check(exercise, answer_of(path, exercise, solution_of), seed)
    assert verdict.ok, str(verdict)


@pytest.mark.parametrize(("path", "exercise"), EXERCISES)
def test_the_blank_stub_fails(path, exercise):
    assert not run_check(exercise, answer_of(path, exercise, stub_of)).ok
