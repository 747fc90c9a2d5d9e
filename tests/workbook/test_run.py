import json

import altair as alt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labkit.workbook import Figure
from labkit.workbook.build import PROOF
from labkit.workbook.charts import MIME, spec
from labkit.workbook.run import Ran, _write_report, inspect_outputs, run_notebook, without_proof

VIEW, WIDGETS = (f"application/vnd.jupyter.widget-{kind}+json" for kind in ("view", "state"))


def chart(rows, words="words"):
    made = spec(Figure(alt.Chart(alt.Data(values=rows)).mark_bar().encode(x="a:Q"), "words", "source"))
    return new_output("display_data", data={MIME: made | {"description": words}})


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (chart([]), "without data"),
        (chart([{"a": 1}], words=""), "text alternative"),
        (new_output("error", ename="E", evalue="v", traceback=[]), "raised E"),
        (new_output("stream", name="stderr", text="Traceback (most recent call last):\n"), "traceback"),
        (new_output("display_data", data={"text/html": "<script>vegaEmbed()</script>"}), "network"),
    ],
)
def test_a_bad_output_is_a_problem(output, words):
    found, _ = inspect_outputs(new_notebook(cells=[new_code_cell("x", outputs=[output])]))
    assert any(words in problem for problem in found)


def test_a_good_chart_is_counted():
    assert inspect_outputs(new_notebook(cells=[new_code_cell("x", outputs=[chart([{"a": 1}])])])) == ([], 1)


def test_a_failing_notebook_is_reported_with_its_error_and_the_learners_state_is_untouched(tmp_path, monkeypatch):
    state = tmp_path / "state"
    monkeypatch.setenv("LABKIT_STATE", str(state))
    body = "from labkit.workbook.paths import state_dir\n(state_dir() / 'x').write_text('x')\n1 / 0"
    cells = [new_code_cell("profile = 'learn'\nsolutions = False", metadata={"tags": ["parameters"]}), new_code_cell(body)]
    path = tmp_path / "bad.ipynb"
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    ran = run_notebook(path, tmp_path / "out", profile="ci", kind="learner")
    assert not ran.ok
    assert "ZeroDivisionError" in " ".join(ran.problems)
    assert ran.peak_mib > 10
    assert (tmp_path / "out" / "bad.ipynb").exists()
    assert not state.exists()


def test_the_report_keeps_runs_of_the_other_kind_and_replaces_its_own(tmp_path):
    def ran(kind, wall):
        return Ran("00_x", kind, "ci", wall, 1.0, 1, ())

    for one in (ran("learner", 1.0), ran("solved", 2.0), ran("learner", 3.0)):
        _write_report([one], tmp_path)
    rows = json.loads((tmp_path / "report.json").read_text())
    assert [(r["kind"], r["wall_s"]) for r in rows] == [("learner", 3.0), ("solved", 2.0)]
    assert "| 00_x | solved | ci | 2.0 |" in (tmp_path / "report.md").read_text()


def test_what_only_proves_the_rest_is_not_kept_nor_are_its_widgets():
    def shows(model, *tags):
        view = new_output("display_data", data={VIEW: {"model_id": model}})
        return new_code_cell("x", outputs=[view], metadata={"tags": list(tags)})

    held = {"a": {"state": {"children": ["IPY_MODEL_c"]}}, "b": {"state": {"outputs": [{}]}}, "c": {"state": {}}}
    notebook = new_notebook(cells=[shows("a"), shows("b", PROOF)])
    notebook.metadata["widgets"] = {WIDGETS: {"state": held}}
    without_proof(notebook)
    assert len(notebook.cells) == 1
    assert set(notebook.metadata["widgets"][WIDGETS]["state"]) == {"a", "c"}
