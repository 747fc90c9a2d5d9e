import nbformat
import pytest

from labkit.workbook import ExerciseError
from labkit.workbook.build import build, main, solution_of, sources, stub_of
from labkit.workbook.paths import notebooks_dir
from tests.workbook.tiny import CHAPTER, SOURCE

CODE = "def f(x):\n    # BEGIN SOLUTION\n    return x + 1\n    # END SOLUTION"


def test_the_stub_hides_the_solution_and_the_solution_hides_the_marks():
    assert stub_of(CODE) == "def f(x):\n    ...  # your code here"
    assert solution_of(CODE) == "def f(x):\n    return x + 1"


def test_a_written_stub_replaces_the_solution_uncommented():
    code = CODE + "\n    # BEGIN STUB\n    # y = 1\n    # return ...\n    # END STUB"
    assert stub_of(code) == "def f(x):\n    y = 1\n    return ..."
    assert solution_of(code) == "def f(x):\n    return x + 1"


@pytest.mark.parametrize("mark", ["BEGIN SOLUTION", "END SOLUTION", "BEGIN STUB"])
def test_a_lone_mark_is_refused(mark):
    with pytest.raises(ExerciseError, match=mark):
        stub_of(f"x = 1\n# {mark}\n")


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
    assert "BEGIN" not in built.learner + built.solved
    assert "cached_tokens / usage.input_tokens if" not in built.learner


def test_a_solution_without_its_mark_cannot_leak():
    with pytest.raises(ExerciseError, match="lacks its mark"):
        build(SOURCE.replace('# %% exercise="99.1"', "# %%"), CHAPTER)


def test_an_unknown_notebook_is_named(capsys):
    assert main(["--check", "77_nothing"]) == 2
    assert "77_nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "folded"),
    [
        ('book.quiz("99.q2", "?", options=("a", "b"), answer="a", why="So.")', True),
        ("n = 2\nMarkdown(f'{n}')", True),
        ('book.check("99.1", cached_share)', False),
        ("chart = alt.Chart(rows)\nshow(chart, alt='', source='')", True),
        ("def mean(rows):\n    return rows\n\n\nshow(mean(rows), alt='', source='')", False),
        ("def draw(n):\n    return n\n\n\nlive_chart(draw, n=slider)", True),
        ("show(await measured(), alt='', source='')", False),
        ("def f():\n    return 1\n\n\nMarkdown(f'{f()}')", False),
        ("found = await run()\nMarkdown(f'{found}')", False),
        ("Markdown", False),
    ],
)
def test_code_that_only_asks_or_shows_is_folded(code, folded):
    built = build(f"{SOURCE}\n# %%\n{code}\n", CHAPTER)
    for text in (built.learner, built.solved):
        last = nbformat.reads(text, as_version=4).cells[-1]
        assert last.source == code
        assert last.metadata.get("jupyter", {}).get("source_hidden", False) is folded


def test_no_quiz_shows_its_answer_above_the_question():
    assert sources()
    for path in sources():
        notebook = nbformat.read(notebooks_dir() / f"{path.stem}.ipynb", as_version=4)
        quizzes = [cell for cell in notebook.cells if cell.cell_type == "code" and "book.quiz(" in cell.source]
        assert len(quizzes) == 3
        assert all(cell.metadata["jupyter"]["source_hidden"] for cell in quizzes)
