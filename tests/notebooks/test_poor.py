"""Every chapter on machines that lack what it measures with: it runs to its end, and says what it replays."""

import nbformat
import pytest

from labkit.workbook.build import sources
from labkit.workbook.run import run_all
from tests.executed import OUT
from tests.notebooks.measured import needs_of
from tests.workbook.plain_endpoint import MODEL, serving

CHAPTERS = [path.stem for path in sources()]


@pytest.fixture
def no_vllm(monkeypatch, tmp_path):
    """Hides vLLM from the kernels that are started, as if it were not installed."""
    (tmp_path / "sitecustomize.py").write_text('import sys\n\nsys.modules["vllm"] = None\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")


@pytest.fixture
def plain(monkeypatch, no_vllm):
    """A plain endpoint with a model that nobody knows, and no /metrics."""
    monkeypatch.setenv("LABKIT_SMALL", MODEL)
    monkeypatch.setenv("LABKIT_LARGE", MODEL)
    with serving() as address:
        monkeypatch.setenv("LABKIT_BASE_URL", address)
        yield


def run(name, out):
    (ran,) = run_all([name], OUT.with_name(out), profile="ci", kind="proved")
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_without_vllm_a_chapter_replays_its_measurements(name, no_vllm):
    ran = run(name, "no-vllm")
    assert ran.problems == ()
    assert ran.charts > 0
    assert set(ran.recorded) <= needs_of(name).keys()
    assert ran.recorded


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHAPTERS if ("answers",) in needs_of(name).values()])
def test_on_a_plain_endpoint_a_chapter_measures_what_that_can_do(name, plain):
    ran = run(name, "plain")
    assert ran.problems == ()
    assert ran.charts > 0
    assert set(ran.recorded) < needs_of(name).keys()


def test_whoever_asks_for_no_engine_gets_none(monkeypatch):
    monkeypatch.setenv("LABKIT_ENGINE", "none")
    ran = run("00_start_here", "none")
    assert ran.problems == ()
    assert set(ran.recorded) == needs_of("00_start_here").keys()
    notebook = nbformat.read(OUT.with_name("none") / "proved" / "00_start_here.ipynb", as_version=4)
    said = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("LABKIT_ENGINE=none asks for no engine" in str(output) for output in said)
