"""What makes a notebook a chapter: predictions, self-checking exercises, quizzes, progress and charts.

A notebook opens its chapter with `open_chapter`, which returns a `Book`; notebooks call it `book`. It connects to engines
and measures through the book, which replays a recording where a machine lacks what a chapter needs. A notebook can show
charts (`show`, `live_chart`), the cost calculator (`dashboard`), the spending of a ledger (`watch_spending`) and the KV
blocks of a live engine (`watch_blocks`). A chapter's exercises are declared in `labkit.workbook.chapters`, with the classes
and helpers of `labkit.workbook.exercise`.
`labkit.workbook.build` generates the notebooks from their sources and `labkit.workbook.run` executes them headless.
"""

from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.workbook.bench import Result
from labkit.workbook.book import Book, open_chapter
from labkit.workbook.chapters import Chapter
from labkit.workbook.charts import PALETTE, ChartError, Figure, live_chart, show
from labkit.workbook.exercise import CheckFailed, Exercise, ExerciseError, Outcome, Stage, agree, call, equals, holds
from labkit.workbook.glossary import Word, read_words
from labkit.workbook.paths import state_dir
from labkit.workbook.quiz import Quiz
from labkit.workbook.rounds import Spread, below, spread

if TYPE_CHECKING:
    from labkit.workbook.blocks import Seen, watch_blocks
    from labkit.workbook.build import main as build_notebooks
    from labkit.workbook.calculator import dashboard
    from labkit.workbook.run import main as run_notebooks
    from labkit.workbook.spent import watch_spending

from labkit.workbook.charts import MIME
from labkit.workbook.mine import lay_out, renewal
from labkit.workbook.paths import LEDGER_VARIABLE, notebooks_dir, repo_root, source_names
from labkit.workbook.progress import progress_text, reset_chapter

__all__ = [
    "LEDGER_VARIABLE",
    "MIME",
    "PALETTE",
    "Book",
    "Chapter",
    "ChartError",
    "CheckFailed",
    "Exercise",
    "ExerciseError",
    "Figure",
    "Outcome",
    "Quiz",
    "Result",
    "Seen",
    "Spread",
    "Stage",
    "Word",
    "agree",
    "below",
    "build_notebooks",
    "call",
    "dashboard",
    "equals",
    "holds",
    "lay_out",
    "live_chart",
    "notebooks_dir",
    "open_chapter",
    "progress_text",
    "read_words",
    "renewal",
    "repo_root",
    "reset_chapter",
    "run_notebooks",
    "show",
    "source_names",
    "spread",
    "state_dir",
    "watch_blocks",
    "watch_spending",
]


def __getattr__(name: str) -> Any:
    """Import the heavy parts on first use: the builder, the runner, and what is drawn with widgets."""
    with extra("workbook"):
        if name == "build_notebooks":
            from labkit.workbook.build import main

            return main
        if name == "run_notebooks":
            from labkit.workbook.run import main

            return main
        if name == "dashboard":
            from labkit.workbook.calculator import dashboard

            return dashboard
        if name == "watch_spending":
            from labkit.workbook.spent import watch_spending

            return watch_spending
        if name in ("Seen", "watch_blocks"):
            from labkit.workbook import blocks

            return getattr(blocks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
