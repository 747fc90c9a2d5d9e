"""Results wait for predictions: what is folded in JupyterLab, and what unfolds it."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from labkit.workbook.render import STYLE
from tests.browser.lab import CHROMIUM, LabServer, Notebook, chromium, open_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium", allow_module_level=True)

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_CELLS = (
    "import altair as alt\nfrom labkit.workbook import show, open_chapter\n"
    "book = open_chapter('03', profile='learn', engine='none')",
    "book.predict('03.warm', 'How long?', low=0, high=120, unit='%')",
    "book.reveal('03.warm', [30, 31, 33], unit='%')",
    "show(alt.Chart(alt.Data(values=[{'a': 1}])).mark_bar().encode(x='a:Q'), alt='x', source='s')",
    "print('the result is thirty-one')",
    "## Do",
    "print('my own')",
)


def test_results_stay_folded_until_the_learner_predicts_or_looks(tmp_path: Path) -> None:
    make = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(cells=[make[text.startswith("## ")](text) for text in _CELLS])
    book.metadata["kernelspec"] = _KERNEL
    (tmp_path / "books").mkdir()
    nbformat.write(book, tmp_path / "books" / "tiny.ipynb")
    with LabServer(tmp_path / "books", tmp_path / "home") as server, chromium() as browser:
        watched = open_page(browser, 1400)
        page = watched.page
        opened = Notebook(server, page, "tiny.ipynb")
        opened.run_all()
        assert opened.errors() == []
        printed, chart = page.get_by_text("the result is thirty-one", exact=True), page.locator("svg.marks")
        assert page.locator(".jp-OutputArea-output", has_text="my own").is_visible()
        assert not printed.last.is_visible()
        assert not chart.is_visible()
        page.get_by_role("button", name="Show the result anyway").click()
        chart.wait_for(state="visible", timeout=30_000)
        assert printed.last.is_visible()
        assert "nothing is scored" in opened.panel.inner_text()
        output = page.locator(".jp-OutputArea-output", has=chart).first
        assert chart.bounding_box()["width"] > 0.7 * output.bounding_box()["width"]  # type: ignore[index]
        page.context.close()
        assert server.stop() == []


def test_a_reopened_notebook_says_what_to_do_where_a_form_was(tmp_path: Path) -> None:
    html = "<p>How long?</p>"
    cells = [nbformat.v4.new_code_cell("book.predict(…)") for _ in range(2)]
    form = {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "0" * 32}}
    cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/html": STYLE})]
    cells[1].outputs = [nbformat.v4.new_output("display_data", data) for data in ({"text/html": html}, form)]
    (tmp_path / "books").mkdir()
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = _KERNEL
    nbformat.write(book, tmp_path / "closed.ipynb")
    with LabServer(tmp_path / "books", tmp_path / "home") as server, chromium() as browser:
        server.show(tmp_path / "closed.ipynb", "closed.ipynb")
        page = open_page(browser, 1400).page
        Notebook(server, page, "closed.ipynb")
        lost = page.locator(".jp-OutputArea-output.jupyter-widgets")
        lost.wait_for(state="attached", timeout=60_000)
        page.wait_for_function(
            "e => getComputedStyle(e, '::after').content.includes('Run this cell')",
            arg=lost.element_handle(),
            timeout=60_000,
        )
        assert lost.evaluate("e => getComputedStyle(e).fontSize") == "0px"  # what the error's own words are written in
        assert page.get_by_text("How long?", exact=True).is_visible()
        page.context.close()
        assert server.stop() == []
