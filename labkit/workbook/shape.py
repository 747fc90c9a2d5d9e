"""Check that a chapter's source has the parts that every chapter must have, so that learners find their way in each."""

from __future__ import annotations

import ast
import re
from typing import Any

import jupytext

from labkit.workbook.build import folded
from labkit.workbook.chapters import Chapter
from labkit.workbook.minutes import EXERCISE, called, is_further, lines_of

SECTIONS = ("Predict", "Run", "Move", "Do", "So what", "Quiz", "Next")
_OPENING = ("**The question.**", "**You will be able to**", "**Time.**", "**Needs.**")
_MONEY = re.compile(r"[$€£]|\b(bill|cost|costs|price|dollars?|cents?|money|pay|pays|paid|spend|saves?)\b", re.IGNORECASE)
_MEASURED = re.compile(r"\d[\d,.]*\s?(ms|µs|s|seconds?|tok/s|tokens/s|tokens per second|req/s)(?![\w/])")
_ABSOLUTE = re.compile(r"""["'`(\s](/(home|root|work|opt|tmp|Users|usr|var)/|[A-Z]:\\)""")
_FORBIDDEN = {
    "await connect(": "connect with book.connect(), which finds a recording where there is no engine",
    "%pip": "versions live in one place: no installing in a chapter",
    "!pip": "versions live in one place: no installing in a chapter",
    ".display(": "show a chart with show(), which demands a text alternative",
    "alt.renderers": "show() already draws offline",
    "JupyterChart": "use live_chart(), which needs no network",
}
_PARAMETERS = frozenset({"profile", "engine", "seed", "solutions"})
_LINES = 40
_QUIZZES = 3
_BANK = 3
_FIRST = "00"
_COMPARES = re.compile(
    r"\b(fast|slow|cheap|dear|long|short|high|low|larg|small|few|great|strong|weak)(er|est)\b|\b(better|best|worse|worst|"
    r"wins?|beats?|half|halves|halved|twice|doubles?|doubled|outweighs?|more than|less than|most of|hardly|barely|"
    r"nearly all|nobody|never)\b",
    re.IGNORECASE,
)
_REASONED = "reasoned"
_LOOKS = re.compile(r"\b(show|live_chart)\(|\bbook\.(measure|reveal|claim)\(")
_STEPS = re.compile(r"\b(?:(show|live_chart)|book\.(measure|reveal|finding|claim))\(")
_BEFORE_THE_BILL = "00"  # chapter 00 builds the meter; the bill's first line comes in chapter 01
_EXERCISES = 3


def problems(source: str, contents: Chapter) -> list[str]:
    """What is missing from, or forbidden in, a chapter's source; empty for a good one."""
    cells = jupytext.reads(source, fmt="py:percent").cells
    return [
        *_opening(cells, contents),
        *_sections(cells),
        *_warm_up(cells, contents),
        *_prose(cells),
        *_findings(cells),
        *_leaks(cells),
        *_claims(cells),
        *_code(cells),
        *_declared(cells, contents),
    ]


def _opening(cells: list[Any], contents: Chapter) -> list[str]:
    first = cells[0].source if cells else ""
    found = []
    if not first.startswith(f"# {contents.number} · "):
        found.append(f"the first cell must start with '# {contents.number} · '")
    places = [first.find(words) for words in _OPENING]
    found += [f"the first cell lacks {words}" for words, place in zip(_OPENING, places, strict=True) if place < 0]
    found += [f"the first cell must leave {mark} to the build" for mark in ("{{time}}", "{{needs}}") if mark not in first]
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


def _warm_up(cells: list[Any], contents: Chapter) -> list[str]:
    """Whether the chapter asks about earlier ones once, and before its own first section; the first chapter must not."""
    at = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and "book.warm_up(" in cell.source]
    if contents.number == _FIRST:
        return ["chapter 00 has none before it: take book.warm_up() out"] if at else []
    starts = next(
        (i for i, c in enumerate(cells) if c.cell_type == "markdown" and f"## {SECTIONS[0]}" in c.source), len(cells)
    )
    return [] if len(at) == 1 and at[0] < starts else [f"book.warm_up() must stand once, before ## {SECTIONS[0]}"]


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


def _findings(cells: list[Any]) -> list[str]:
    """Comparisons that are stated whatever the run measured: in titles, in shown texts, and in prose under a result."""
    found, seen = [], False
    for cell in cells:
        if cell.cell_type == "code":
            seen = seen or bool(_LOOKS.search(cell.source))
            if _REASONED not in cell.metadata.get("tags", ()):
                found += [
                    f"{text[:70]!r} compares whatever the run measured ({word!r}): make it depend on the run, as with "
                    f"book.finding, or tag the cell {_REASONED} where it is true by arithmetic or definition"
                    for text, word in _unconditional(cell.source)
                ]
            continue
        if seen and _REASONED not in cell.metadata.get("tags", ()) and (word := _COMPARES.search(_first_part(cell.source))):
            found.append(
                f"the prose under a result compares whatever the run measured ({word[0]!r} in {cell.source[:50]!r}): "
                f"state it with book.finding, or tag the cell {_REASONED} where it is true by arithmetic or definition"
            )
        seen = False
    return found


def _leaks(cells: list[Any]) -> list[str]:
    """Charts, findings and claims between a measurement and the next reveal under its heading, or before one in its cell."""
    found: list[str] = []
    waiting: list[str] | None = None  # what has been shown since the last measurement; None before one
    for cell in cells:
        if cell.cell_type == "markdown":
            if re.search(r"^#+ ", cell.source, re.MULTILINE):
                waiting = None
            continue
        if waiting is None and "book.reveal(" in cell.source:
            waiting = []
        for step in _STEPS.finditer(cell.source):
            kind = step[1] or step[2]
            if kind == "measure":
                waiting = []
            elif kind == "reveal":
                found += [
                    f"{shown} shows a result before {called('reveal', cell.source)} is revealed: reveal it first"
                    for shown in waiting or ()
                ]
                waiting = None
            elif waiting is not None:
                waiting.append(f"{step[0]}…) in the cell {cell.source.splitlines()[0][:50]!r}")
    return found


def _claims(cells: list[Any]) -> list[str]:
    """Claims that do not say who makes them."""
    calls = [call for cell in cells if cell.cell_type == "code" for call in _calls(cell.source)]
    return [
        f"the claim {ast.unparse(call.args[0])} names nobody: say by whom (title, year, where) in by="
        for call in calls
        if ast.unparse(call.func) == "book.claim" and not _says(call, "by")
    ]


def _says(call: ast.Call, name: str) -> bool:
    """Whether a call has this argument, and not as an empty text."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return any(not (isinstance(value, ast.Constant) and not str(value.value).strip()) for value in given)


def _calls(code: str) -> list[ast.Call]:
    """All calls of a cell; none of one that is not Python, which is reported elsewhere."""
    try:
        return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []


def _first_part(prose: str) -> str:
    """The prose of a cell up to its first heading: what speaks of the result above it."""
    return re.split(r"^(#+ |\{\{exercise)", prose, maxsplit=1, flags=re.MULTILINE)[0]


def _unconditional(code: str) -> list[tuple[str, str]]:
    """Texts in chart titles and in `Markdown(…)` that compare, outside of any condition; each with the comparing word."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    texts: list[ast.expr] = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            texts += [keyword.value for keyword in call.keywords if keyword.arg == "title" and _of_a_chart(call)]
            if isinstance(call.func, ast.Name) and call.func.id == "Markdown":
                texts += call.args
    found = []
    for text in texts:
        found += [(constant, word[0]) for constant in _plain(text) if (word := _COMPARES.search(constant))]
    return found


def _of_a_chart(call: ast.Call) -> bool:
    """Whether a title is a chart's, and not an axis's or a legend's."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "properties"


def _plain(part: ast.AST) -> list[str]:
    """The constant texts of an expression that stand there whatever its values are."""
    if isinstance(part, ast.IfExp | ast.Call | ast.Subscript | ast.BoolOp):
        return []
    if isinstance(part, ast.Constant):
        return [part.value] if isinstance(part.value, str) else []
    return [text for child in ast.iter_child_nodes(part) for text in _plain(child)]


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
        lines = lines_of(cell.source)
        if lines > _LINES and not folded(cell):
            found.append(
                f"a cell shows {lines} lines of code, more than {_LINES}: {cell.source.splitlines()[0]!r}; measure in one "
                "cell and draw in the next, which is folded"
            )
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
        "book.predict": (called("predict", code) + called("predict_choice", code), contents.predictions),
        "book.reveal": (called("reveal", code), contents.predictions),
        "book.quiz": (called("quiz", code), tuple(quiz.id for quiz in contents.quizzes)),
        "book.claim": (called("claim", code), contents.claims),
        "book.check": (called("check", code), exercises),
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
    if len(contents.bank) < _BANK:
        found.append(f"a chapter leaves three more questions or more to later ones (bank=), this one {len(contents.bank)}")
    if len(exercises) < _EXERCISES:
        found.append(f"a chapter has three exercises or more, this one {len(exercises)}")
    long = {e.id for e in contents.exercises if e.stages}
    for cell, further in zip(cells, is_further(cells), strict=True):
        if cell.cell_type == "markdown" and not further:
            found += [
                f"the long build {id} must stand in a cell tagged further"
                for id in EXERCISE.findall(cell.source)
                if id in long
            ]
    if len(long) > 1:
        found.append(f"a chapter has one long build at most, this one {sorted(long)}")
    if not len(contents.predictions) >= 1:
        found.append("a chapter has at least one prediction")
    found += [] if "book.recap()" in code else ["the chapter does not end with book.recap()"]
    if "book.bill(" not in code and contents.number != _BEFORE_THE_BILL:
        found.append("the chapter adds no line to the running case's bill; call book.bill()")
    return found
