import re
from dataclasses import replace
from typing import Any

import nbformat
import pytest

from labkit.workbook import ExerciseError
from labkit.workbook.build import build, main, solution_of
from labkit.workbook.chapters import chapters
from labkit.workbook.paths import notebooks_dir
from tests.workbook.tiny import CHAPTER, EXERCISE, SOURCE

STUB = """\
def cached_share(usage):
    \"\"\"The share.\"\"\"
    ...  # your code here
"""


def test_the_solution_is_the_references_body_under_the_learners_signature():
    solved = solution_of(STUB, EXERCISE)
    assert solved == STUB.replace(
        "...  # your code here\n", "return usage.cached_tokens / usage.input_tokens if usage.input_tokens else 0.0"
    )


class Doubled:
    """Doubles."""

    def of(self, number: int, *, times: int = 2) -> int:
        """`number` several times."""
        # not a shift: times may be 3
        return number * times


def test_of_a_class_all_methods_are_taken_and_what_stands_before_it_stays():
    stub = "START = 1\n\n\nclass Doubled:\n    def of(self, number, *, times=2):\n        ..."
    exercise = replace(EXERCISE, answer="Doubled", reference=Doubled)
    assert solution_of(stub, exercise).splitlines()[:4] == ["START = 1", "", "", "class Doubled:"]
    names: dict[str, Any] = {}
    exec(solution_of(stub, exercise), names)
    assert names["Doubled"]().of(4, times=3) == 12


def test_methods_that_only_the_reference_has_are_its_own_affair_and_public_ones_are_not():
    class Twice:
        def of(self, number):
            return self._times(number, 2)

        def _times(self, number, times):
            return number * times

    exercise = replace(EXERCISE, answer="Twice", reference=Twice)
    stub = "class Twice:\n    def of(self, number):\n        ..."
    names: dict[str, Any] = {}
    exec(solution_of(stub, exercise), names)
    assert names["Twice"]().of(4) == 8
    with pytest.raises(ExerciseError, match="named, a function of"):
        solution_of(stub.replace("def of", "def named"), exercise)


@pytest.mark.parametrize(
    ("stub", "said"),
    [
        (STUB.replace("(usage)", "(used)"), "used"),
        (STUB.replace("(usage)", "(usage, *, more=1)"), "more=1"),
        (STUB.replace("def", "async def"), "async function"),
        (STUB.replace("cached_share", "another"), "cached_share"),
        (STUB + "\nprint(1)\n", "must end"),
    ],
)
def test_a_start_that_its_solution_does_not_fit_is_refused(stub, said):
    with pytest.raises(ExerciseError, match=re.escape(said)):
        solution_of(stub, EXERCISE)


def test_the_two_notebooks_are_valid_blank_deterministic_and_differ_in_the_exercise_and_the_parameter_only():
    built = build(SOURCE, CHAPTER)
    assert built == build(SOURCE, CHAPTER)
    learner, solved = (nbformat.reads(text, as_version=4) for text in (built.learner, built.solved))
    for notebook in (learner, solved):
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    differ = [a.metadata for a, b in zip(learner.cells, solved.cells, strict=True) if a.source != b.source]
    assert differ == [{"tags": ["parameters"]}, {"exercise": "99.1"}]
    assert "cached_tokens / usage.input_tokens if" not in built.learner


def test_an_unknown_notebook_is_named(capsys):
    assert main(["--check", "77_nothing"]) == 2
    assert "77_nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "folded"),
    [
        ('book.quiz("99.q1")', True),
        ('book.finding(found > 2, "So.", "Not so.")', True),
        ("n = 2\nMarkdown(f'{n}')", True),
        ('book.check("99.1", cached_share)', False),
        ("chart = alt.Chart(rows)\nshow(chart, alt='', source='')", True),
        ("def mean(rows):\n    return rows\n\n\nshow(mean(rows), alt='', source='')", False),
        ("def draw(n):\n    return n\n\n\nlive_chart(draw, n=slider)", True),
        ("show(await measured(), alt='', source='')", False),
        ("def f():\n    return 1\n\n\nMarkdown(f'{f()}')", False),
        ("found = await run()\nMarkdown(f'{found}')", False),
        ("draw_picture(kv_heads(8, 2))", True),
        ("Markdown", False),
    ],
)
def test_code_that_only_asks_or_shows_is_folded(code, folded):
    built = build(f"{SOURCE}\n# %%\n{code}\n", CHAPTER)
    for text in (built.learner, built.solved):
        last = nbformat.reads(text, as_version=4).cells[-1]
        assert last.source == code
        assert last.metadata.get("jupyter", {}).get("source_hidden", False) is folded


def test_no_notebook_holds_an_answer_of_its_quiz():
    assert chapters()
    for contents in chapters():
        notebook = nbformat.read(notebooks_dir() / f"{contents.notebook}.ipynb", as_version=4)
        asked = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "book.quiz(" in cell.source]
        assert asked == [f'book.quiz("{quiz.id}")' for quiz in contents.quizzes]
        assert len(asked) == 3
