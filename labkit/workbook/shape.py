"""Check that a chapter's source has the parts that every chapter must have, so that learners find their way in each."""

from __future__ import annotations

import ast
import re
from typing import Any

import jupytext

from labkit.workbook.chapters import Chapter

SECTIONS = ("Predict", "Run", "Move", "Do", "So what", "Quiz", "Next")
_OPENING = ("**The question.**", "**You will be able to**", "**Time.**", "**Needs.**")
_MONEY = re.compile(r"[$€£]|\b(bill|cost|costs|price|dollars?|cents?|money|pay|pays|paid|spend|saves?)\b", re.IGNORECASE)
_MEASURED = re.compile(r"\d[\d,.]*\s?(ms|µs|s|seconds?|tok/s|tokens/s|tokens per second|req/s)(?![\w/])")
_ABSOLUTE = re.compile(r"""["'`(\s](/(home|root|work|opt|tmp|Users|usr|var)/|[A-Z]:\\)""")
_FORBIDDEN = {
    "%pip": "versions live in one place: no installing in a chapter",
    "!pip": "versions live in one place: no installing in a chapter",
    ".display(": "show a chart with show(), which demands a text alternative",
    "alt.renderers": "show() already draws offline",
    "JupyterChart": "use live_chart(), which needs no network",
}
_PARAMETERS = frozenset({"profile", "engine", "seed", "solutions"})
_QUIZZES = 3
_BEFORE_THE_BILL = "00"  # chapter 00 builds the meter; the bill's first line comes in chapter 01
_EXERCISES = 3


def problems(source: str, contents: Chapter) -> list[str]:
    """What is missing from, or forbidden in, a chapter's source; empty for a good one."""
    cells = jupytext.reads(source, fmt="py:percent").cells
    return [*_opening(cells, contents), *_sections(cells), *_prose(cells), *_code(cells), *_declared(cells, contents)]


def _opening(cells: list[Any], contents: Chapter) -> list[str]:
    first = cells[0].source if cells else ""
    found = []
    if not first.startswith(f"# {contents.number} · "):
        found.append(f"the first cell must start with '# {contents.number} · '")
    places = [first.find(words) for words in _OPENING]
    found += [f"the first cell lacks {words}" for words, place in zip(_OPENING, places, strict=True) if place < 0]
    question = first.partition(_OPENING[0])[2].partition("\n\n")[0]
    if question and not _MONEY.search(question):
        found.append("the question has no money in it")
    return found


def _sections(cells: list[Any]) -> list[str]:
    there = [
        line[3:].strip()
        for c in cells
        if c.cell_type == "markdown"
        for line in c.source.splitlines()
        if line.startswith("## ")
    ]
    return [] if tuple(there) == SECTIONS else [f"the sections are {there}; they must be {list(SECTIONS)}, in this order"]


def _prose(cells: list[Any]) -> list[str]:
    found = []
    for cell in cells:
        if cell.cell_type != "markdown":
            continue
        if "constants" not in cell.metadata.get("tags", ()):
            found += [
                f"the prose states {m[0]!r}: print it from the run, or tag a constant"
                for m in _MEASURED.finditer(cell.source)
            ]
        found += [f"absolute path in prose: {m[1]}" for m in _ABSOLUTE.finditer(cell.source)]
    return found


def _code(cells: list[Any]) -> list[str]:
    found = []
    for cell in cells:
        if cell.cell_type != "code":
            continue
        found += [f"{words} in code: {why}" for words, why in _FORBIDDEN.items() if words in cell.source]
        found += [f"absolute path in code: {m[1]}" for m in _ABSOLUTE.finditer(cell.source)]
        if "parameters" in cell.metadata.get("tags", ()):
            found.append("the build adds the parameters cell; take it out of the source")
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            found.append(f"a cell is not Python: {error.msg}: {cell.source.splitlines()[0]}")
            continue
        set_here = {
            t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
        }
        found += [f"a cell overwrites the parameter {name}" for name in sorted(set_here & _PARAMETERS)]
    return found


def _declared(cells: list[Any], contents: Chapter) -> list[str]:
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    exercises = tuple(e.id for e in contents.exercises)
    wanted = {
        "book.predict": (_called("predict", code) + _called("predict_choice", code), contents.predictions),
        "book.reveal": (_called("reveal", code), contents.predictions),
        "book.quiz": (_called("quiz", code), contents.quizzes),
        "book.claim": (_called("claim", code), contents.claims),
        "book.check": (_called("check", code), exercises),
        "an exercise cell": ([c.metadata["exercise"] for c in cells if "exercise" in c.metadata], exercises),
        "{{exercise NN.k}}": (re.findall(r"\{\{exercise (\d\d\.\d+)\}\}", prose), exercises),
    }
    found = [
        f"{what} is used for {sorted(used)} but the chapter declares {sorted(declared)}"
        for what, (used, declared) in wanted.items()
        if sorted(used) != sorted(declared)
    ]
    if len(contents.quizzes) != _QUIZZES:
        found.append(f"a chapter has a quiz of three, this one of {len(contents.quizzes)}")
    if len(exercises) < _EXERCISES:
        found.append(f"a chapter has three exercises or more, this one {len(exercises)}")
    if not len(contents.predictions) >= 1:
        found.append("a chapter has at least one prediction")
    found += [] if "book.recap()" in code else ["the chapter does not end with book.recap()"]
    if "book.bill(" not in code and contents.number != _BEFORE_THE_BILL:
        found.append("the chapter adds no line to the running case's bill; call book.bill()")
    return found


def _called(method: str, code: str) -> list[str]:
    return re.findall(rf"book\.{method}\(\s*[\"']([^\"']+)[\"']", code)
