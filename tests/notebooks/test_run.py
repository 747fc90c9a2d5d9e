"""Every notebook, executed headless on a live engine: as a learner leaves it, and solved."""

import os
from pathlib import Path

import pytest

from labkit.workbook.build import sources
from labkit.workbook.paths import repo_root
from labkit.workbook.run import run_all

OUT = Path(os.environ.get("LABKIT_NOTEBOOKS_OUT", repo_root() / "build" / "notebooks"))


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("solutions", [False, True], ids=["learner", "solved"])
@pytest.mark.parametrize("name", [path.stem for path in sources()])
def test_a_notebook_runs_to_its_end(name, solutions):
    (ran,) = run_all([name], OUT, profile="ci", solutions=solutions)
    assert ran.problems == ()
    assert ran.charts > 0
    assert ran.peak_mib > 0


def test_chapter_00_runs_without_vllm_from_its_recording():
    (ran,) = run_all(["00_start_here"], OUT.with_name("replayed"), profile="ci", solutions=True, engine="replay")
    assert ran.problems == ()
