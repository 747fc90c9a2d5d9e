"""Every chapter there is, found by itself: its shape, its committed notebooks, and the proof of its exercises."""

import ast
import builtins
import dis
import inspect
from typing import Any

import jupytext
import nbformat
import pytest

from labkit.workbook.build import build_file, main, solution_of, sources
from labkit.workbook.chapters import chapter
from labkit.workbook.exercise import Exercise, run_check
from labkit.workbook.minutes import is_further
from labkit.workbook.shape import problems

SOURCES = sources()
EXERCISES = [
    pytest.param(path, exercise, id=exercise.id) for path in SOURCES for exercise in chapter(path.stem[:2]).exercises
]


def answer_of(path: Any, exercise: Exercise, *, solved: bool) -> Any:
    """What the exercise's cell defines, after the chapter's cells tagged `imports` alone."""
    cells = jupytext.read(path, fmt="py:percent").cells
    code = [cell.source for cell in cells if "imports" in cell.metadata.get("tags", ())]
    (asked,) = (cell.source for cell in cells if cell.metadata.get("exercise") == exercise.id)
    code.append(solution_of(asked, exercise) if solved else asked)
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_chapter_imports_nothing_that_neither_it_nor_a_solution_uses(path):
    cells = nbformat.reads(build_file(path).solved, as_version=4).cells
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}
    assert names - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} == set()


@pytest.mark.parametrize(("path", "exercise"), EXERCISES)
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_passes(path, exercise, seed):
    verdict = run_check(exercise, answer_of(path, exercise, solved=True), seed)
    assert verdict.ok, str(verdict)


@pytest.mark.parametrize(("path", "exercise"), EXERCISES)
def test_a_solution_uses_only_names_that_its_notebook_has(path, exercise):
    """A name that is missing would raise, and raising is what some checks ask for."""
    answer = answer_of(path, exercise, solved=True)
    functions = [answer] if inspect.isfunction(answer) else [f for f in vars(answer).values() if inspect.isfunction(f)]
    for function in functions:
        assert read_names(function.__code__) <= set(dir(builtins)) | set(function.__globals__)


@pytest.mark.parametrize(("path", "exercise"), EXERCISES)
def test_the_blank_stub_fails(path, exercise):
    assert not run_check(exercise, answer_of(path, exercise, solved=False)).ok


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_core_needs_nothing_from_the_parts_that_may_be_skipped(path):
    cells = jupytext.read(path, fmt="py:percent").cells
    core, further = set(), {}
    for cell, skipped in zip(cells, is_further(cells), strict=True):
        if cell.cell_type != "code":
            continue
        code = compile(cell.source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        bound = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
        if skipped:
            further |= dict.fromkeys(bound - core, cell.source[:60])
        else:
            missing = {name: further[name] for name in read_names(code) & further.keys() - core - bound}
            assert missing == {}, cell.source[:200]
            core |= bound


def read_names(code):
    """The global names that a cell's code and the code within it read."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
    return found.union(*(read_names(part) for part in code.co_consts if inspect.iscode(part)))
