"""Every notebook, executed headless on a live engine: as a learner leaves it, then each solution in the same kernel."""

import ast
import dis
import types

import nbformat
import pytest

from labkit.engines import has_avx512
from labkit.workbook.build import PROOF, build_file, sources
from labkit.workbook.chapters import chapter
from tests.executed import executed
from tests.notebooks.measured import needs_of


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [path.stem for path in sources()])
def test_a_notebook_runs_to_its_end(name):
    ran = executed(name)
    assert ran.problems == ()
    assert ran.charts > 0
    assert ran.peak_mib > 0
    eight_bit = set() if has_avx512() else {id for id, needs in needs_of(name).items() if "8-bit KV" in needs}
    replayed = set(ran.recorded) - eight_bit  # vLLM refuses an 8-bit KV cache to some processors
    assert replayed == set(), "a machine with vLLM measures by itself"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_that_one_run_proves_the_solved_notebook_too(path):
    """The two notebooks differ in the exercises' cells alone; the run repeats these, and each cell that uses their names."""
    built = build_file(path)
    learner, solved, proved = (nbformat.reads(text, as_version=4) for text in (built.learner, built.solved, built.proved))
    is_proof = [PROOF in cell.metadata.get("tags", ()) for cell in proved.cells]
    assert [cell.source for cell, proof in zip(proved.cells, is_proof, strict=True) if not proof] == [
        cell.source for cell in learner.cells
    ]
    proof = [cell.source for cell, proof in zip(proved.cells, is_proof, strict=True) if proof]
    exercises = chapter(path.stem[:2]).exercises
    for blank, full in zip(learner.cells, solved.cells, strict=True):
        if blank.source != full.source.replace("](../../", "](../"):  # the solved one lies a folder deeper
            assert "exercise" in full.metadata or full.metadata["tags"] == ["parameters"]
        if full.cell_type == "code" and globals_of(full.source) & {exercise.answer for exercise in exercises}:
            assert full.source in proof
    assert [f'book.check("{each.id}", {each.answer})' for each in exercises] == [p for p in proof if "book.check(" in p]


def globals_of(source):
    """The global names that a cell's code uses, as the compiler sees them."""
    waiting = [compile(source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)]
    found = set()
    while waiting:
        code = waiting.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname.endswith(("_NAME", "_GLOBAL"))}
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found
