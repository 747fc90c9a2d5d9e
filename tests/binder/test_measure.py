"""Chapter 00 in Binder's 2 GiB, and the proof that the limit is a limit."""

import importlib.util
import os
import stat
import sys
from pathlib import Path

import nbformat
import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("binder_measure", REPO / "binder" / "measure.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def groups(measure):
    """Skips where no memory control group can be made."""
    if os.geteuid() != 0:
        pytest.skip("control groups need root")
    try:
        measure.Group(64).remove()
    except SystemExit as error:
        pytest.skip(str(error))


def test_the_start_script_caps_the_blas_threads(measure):
    settings = measure.start_settings()
    assert {settings[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}


@pytest.mark.parametrize("name", ["start", "postBuild"])
def test_binders_scripts_can_be_executed(name):
    assert (REPO / "binder" / name).stat().st_mode & stat.S_IXUSR


def notebook(path, code):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel), path)
    return path


@pytest.mark.slow
def test_a_notebook_that_needs_more_than_the_limit_is_killed_and_reported(measure, groups, tmp_path):
    hungry = notebook(tmp_path / "hungry.ipynb", "x = b'1' * (600 << 20)\nlen(x)")
    measured = measure.measure(hungry, 512)
    assert not measured.ok
    assert measured.killed >= 1
    assert not list(measure.CGROUPS.rglob(f"labkit-binder-{os.getpid()}"))


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.timeout(1000)
def test_chapter_00_runs_live_in_two_gigabytes(measure, groups):
    measured = measure.measure(REPO / "notebooks" / "00_start_here.ipynb", 2048)
    assert measured.ok, measured
    assert measured.killed == 0
    assert measured.peak_processes_mib < 2048
