"""Generate the notebooks from their percent-format sources: `python -m labkit.workbook.build [--check]`.

A cell that carries `exercise="NN.k"` holds what the learner sees, the start of an answer. In the solved notebook, the body
of that function or class is the body of the exercise's reference in `labkit.workbook.chapters`. The build adds the papermill
`parameters` cell and the cell that opens the chapter, writes out how long the chapter takes and what it needs, marks what
may be skipped, links the first use of each word of the glossary to its entry, and folds the code of cells that only import,
ask or show. A built notebook depends only on the source, the chapter's declaration, the glossary and the seconds in its
recording, so `--check` compares it byte by byte with the committed one. Built notebooks hold no outputs, so `--check` also
refuses a committed notebook that holds some.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from labkit.workbook.chapters import Chapter, chapter
from labkit.workbook.exercise import Exercise, ExerciseError
from labkit.workbook.glossary import PAGE, Linker, Word, read_words
from labkit.workbook.minutes import EXERCISE, FURTHER, estimate, marked
from labkit.workbook.needs import words as words_of_needs
from labkit.workbook.paths import chapter_recording, notebooks_dir, source_names, sources_dir, words_file
from labkit.workbook.recorded import load

_PARAMETERS = """\
profile = "learn"  # "ci" keeps every experiment short, "learn" is for people, "gpu" uses a GPU's sizes
engine = "auto"
seed = 0
solutions = {solutions}"""
_OPEN = """\
try:
    from labkit import workbook
except ModuleNotFoundError as error:
    raise SystemExit(
        f"This kernel ({{__import__('sys').executable}}) has no labkit. Start JupyterLab from the clone with `make lab`, "
        "or choose the kernel of the clone's .venv."
    ) from error

book = workbook.open_chapter("{number}", profile=profile, engine=engine, seed=seed, solutions=solutions)"""
PROOF = "proof"  # the tag of cells that only `Built.proved` has
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FOLDED = {"jupyter": {"source_hidden": True}}  # JupyterLab shows a bar that opens with a click
_WORDS = frozenset(
    {"predict", "predict_choice", "reveal", "quiz", "warm_up", "claim", "bill", "finding", "recap", "progress"}
)
_SHOWS = frozenset({"Markdown", "show", "draw_picture", "live_chart"})
_TIME, _NEEDS = "{{time}}", "{{needs}}"


@dataclass(frozen=True, slots=True)
class Built:
    """The texts of the notebooks made from one source: the learner's and the solved one, and one for tests.

    `proved` is for tests: the learner's notebook, to which the solutions and the cells that use their names are added. The
    learner's and the solved notebook differ in nothing else but the paths of their links, so one run of `proved` shows what
    a run of each would show.
    """

    name: str
    learner: str
    solved: str
    proved: str

    def targets(self, folder: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
        """Path and text of the learner's and of the solved notebook under the notebooks' `folder`."""
        return (folder / f"{self.name}.ipynb", self.learner), (folder / "solutions" / f"{self.name}.ipynb", self.solved)


def sources(names: Sequence[str] = ()) -> tuple[Path, ...]:
    """The chapter sources: the named ones, or all. For an unknown name, raises `ExerciseError` that lists the known ones."""
    there = {name: sources_dir() / f"{name}.py" for name in source_names()}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ExerciseError(f"no notebook source named {', '.join(unknown)}; there are {', '.join(there) or 'none'}")
    return tuple(there[name] for name in names or there)


def solution_of(code: str, exercise: Exercise) -> str:
    """The solved version of an exercise's cell: its function or class, with the body of the exercise's reference.

    Raises `ExerciseError` for a cell that does not end by defining the exercise's answer, and for an answer that takes other
    arguments than the reference.
    """
    lines, reference = code.splitlines(), textwrap.dedent(inspect.getsource(exercise.reference)).splitlines()
    asked, solved = ast.parse(code).body[-1], ast.parse("\n".join(reference)).body[-1]
    if not isinstance(asked, _DEFINITIONS) or asked.name != exercise.answer:
        raise ExerciseError(f"exercise {exercise.id}: its cell must end with the definition of {exercise.answer}")
    if not isinstance(solved, _DEFINITIONS) or _interface(asked) != _interface(solved):
        raise ExerciseError(
            f"exercise {exercise.id}: {exercise.answer} is {_interface(asked)} in the notebook's source, and its reference "
            f"in the chapter's module is {_interface(solved) if isinstance(solved, _DEFINITIONS) else 'no definition'}"
        )
    return "\n".join([*lines[: _body_begins(asked)], *reference[_body_begins(solved) :]])


def build(
    source: str, contents: Chapter, measured_s: Mapping[str, float] | None = None, words: Sequence[Word] = ()
) -> Built:
    """The notebooks of a chapter, from the text of its source and the recorded seconds of its measurements.

    The first use of each of `words` in its prose becomes a link. Raises `ExerciseError` for a cell that is marked wrongly.
    """
    cells = jupytext.reads(source, fmt="py:percent").cells
    if not cells or cells[0].cell_type != "markdown":
        raise ExerciseError(f"{contents.notebook}: the first cell must be markdown, with the chapter's title and question")
    minutes = estimate(cells, contents, [folded(cell) for cell in cells], measured_s or {})
    cells[0].source = cells[0].source.replace(_TIME, minutes.words).replace(_NEEDS, needs_words(contents))
    linker = Linker(words)
    for cell in cells:
        if cell.cell_type == "markdown":
            written = EXERCISE.sub(lambda m: contents.exercise(m[1]).heading, cell.source)
            cell.source = linker.link(marked(written) if FURTHER in cell.metadata.get("tags", ()) else written)
    learner, solved = (_notebook(cells, contents, solutions=solutions) for solutions in (False, True))
    return Built(contents.notebook, *map(_written, (learner, solved, _proved(learner, solved, contents))))


def build_file(path: Path) -> Built:
    """The notebooks of the chapter whose source is `path`.

    Raises `ExerciseError` for a file name that is not the chapter's, and as `build` does.
    """
    contents = chapter(path.stem[:2])
    if contents.notebook != path.stem:
        raise ExerciseError(
            f"{path.name} should be {contents.notebook}.py, as chapter {contents.number} is named {contents.name!r}"
        )
    kept = chapter_recording(contents.notebook)
    seconds = {id: one.seconds for id, one in load(kept).measurements.items()} if kept.is_file() else {}
    return build(path.read_text(encoding="utf-8"), contents, seconds, read_words(words_file()))


def needs_words(contents: Chapter) -> str:
    """What the chapter's measurements need, and what happens without it."""
    needed = words_of_needs(contents.needs)
    return f"To measure: {needed}. Whatever is missing is replayed from the chapter's recording, and says so."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the notebooks, or with `--check` say which differ from their source.

    Returns the exit status: 0 for success, 1 when `--check` found a difference, 2 for a source that cannot be built.
    """
    parser = argparse.ArgumentParser(
        prog="python -m labkit.workbook.build", description="Generate the notebooks from their sources."
    )
    parser.add_argument("names", nargs="*", help="notebooks to build, such as 00_start_here; all of them by default")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a notebook differs from its source")
    options = parser.parse_args(arguments)
    try:
        built = [build_file(path) for path in sources(options.names)]
    except ExerciseError as error:
        print(error, file=sys.stderr)
        return 2
    wanted = {path: text for one in built for path, text in one.targets(notebooks_dir())}
    if options.check:
        wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        if not options.names:
            wrong += [path for path in _generated() if path not in wanted]
        for path in wrong:
            print(f"{path.relative_to(notebooks_dir().parent)} differs from its source: run python -m labkit.workbook.build")
        return 1 if wrong else 0
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(wanted)} notebooks written")
    return 0


def _generated() -> list[Path]:
    return [*notebooks_dir().glob("*.ipynb"), *(notebooks_dir() / "solutions").glob("*.ipynb")]


def _notebook(cells: Sequence[Any], contents: Chapter, *, solutions: bool) -> Any:
    made = [_cell(cell, contents, solutions=solutions) for cell in cells]
    made[1:1] = [
        nbformat.v4.new_code_cell(_PARAMETERS.format(solutions=solutions), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(_OPEN.format(number=contents.number), metadata={"tags": ["bootstrap"], **_FOLDED}),
    ]
    notebook = nbformat.v4.new_notebook(cells=made, metadata=_METADATA)
    notebook.nbformat_minor = 5
    return notebook


def _proved(learner: Any, solved: Any, contents: Chapter) -> Any:
    """The learner's notebook with proof cells before its last cell, which ends the engines.

    The proof cells open a solved book in the same kernel, and run the solutions and the cells that use their names.
    """
    answers = {exercise.answer for exercise in contents.exercises}
    again = [
        cell for cell in solved.cells if cell.cell_type == "code" and ("exercise" in cell.metadata or _uses(cell, answers))
    ]
    opened = f"solutions, learners = True, book\n{_OPEN.format(number=contents.number)}"
    sources = (opened, *(cell.source for cell in again), "solutions, book = False, learners")
    proof = [nbformat.v4.new_code_cell(source, metadata={"tags": [PROOF]}) for source in sources]
    *before, end = learner.cells
    return nbformat.v4.new_notebook(cells=[*before, *proof, end], metadata=_METADATA, nbformat_minor=5)


def _uses(cell: Any, names: Collection[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(ast.parse(cell.source)))


def _written(notebook: Any) -> str:
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def _cell(cell: Any, contents: Chapter, *, solutions: bool) -> Any:
    metadata: dict[str, Any] = {"tags": list(cell.metadata["tags"])} if cell.metadata.get("tags") else {}
    if cell.cell_type == "markdown":
        text = cell.source.replace(f"]({PAGE}#", f"](../{PAGE}#") if solutions else cell.source  # it lies a folder deeper
        return nbformat.v4.new_markdown_cell(text, metadata=metadata)
    if cell.cell_type != "code":
        return nbformat.v4.new_raw_cell(cell.source, metadata=metadata)
    id = cell.metadata.get("exercise")
    if id is None:
        if folded(cell):
            metadata |= _FOLDED
        return nbformat.v4.new_code_cell(cell.source, metadata=metadata)
    metadata["exercise"] = id
    code = solution_of(cell.source, contents.exercise(id)) if solutions else cell.source
    return nbformat.v4.new_code_cell(code, metadata=metadata)


def folded(cell: Any) -> bool:
    """Whether the notebook hides the cell's code: it only imports, asks or shows."""
    if cell.cell_type != "code" or "exercise" in cell.metadata:
        return False
    return "imports" in cell.metadata.get("tags", ()) or _only_shows(cell.source)


def _only_shows(code: str) -> bool:
    """Whether the code of a cell may be folded: it ends by showing a text, a chart or a question, and does nothing else.

    The code of a question gives the answer away, the code of a text says everything twice, and the code of a chart is longer
    than the chart. A cell that awaits something, or defines a function or class for other cells, is not folded. A moving
    chart (`live_chart`) may define a function: only the chart calls it.
    """
    tree = ast.parse(code)
    statements = tree.body
    if not statements or not isinstance(statements[-1], ast.Expr) or not isinstance(statements[-1].value, ast.Call):
        return False
    called = statements[-1].value.func
    name = called.id if isinstance(called, ast.Name) else ""
    own = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "book"
    asks = own and isinstance(called, ast.Attribute) and called.attr in _WORDS
    if not (asks or name in _SHOWS):
        return False
    definitions = ast.AsyncFunctionDef | ast.ClassDef | ast.Await
    unseen = definitions if name == "live_chart" else definitions | ast.FunctionDef
    return not any(isinstance(part, unseen) for part in ast.walk(tree))


def _interface(definition: Definition) -> str:
    """What a caller of the function or class sees, without types: its kind, and its arguments or its public methods'."""
    if isinstance(definition, ast.ClassDef):
        methods = [part for part in definition.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
        public = [part for part in methods if not part.name.startswith("_") or part.name.startswith("__")]
        return f"a class with {'; '.join(f'{part.name}, {_interface(part)}' for part in public)}"
    bare = copy.deepcopy(definition.args)
    for argument in ast.walk(bare):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    kind = "an async function" if isinstance(definition, ast.AsyncFunctionDef) else "a function"
    return f"{kind} of ({ast.unparse(bare)})"


def _body_begins(definition: Definition) -> int:
    """The number of the lines up to the body: the signature and the docstring."""
    first = definition.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return (first.end_lineno or first.lineno) if documented else first.lineno - 1


if __name__ == "__main__":
    sys.exit(main())
