"""The driver of the browser tests: what it waits for, and what it leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from tests.browser.lab import CHROMIUM, THEMES, LabServer, Notebook, chromium, open_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium", allow_module_level=True)

_SLOW = "import time\ntime.sleep(1.5)\nruns = globals().get('runs', 0) + 1"


def test_each_run_is_awaited_to_its_end_and_nothing_outlives_the_server(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    sources = [_SLOW, "print(f'run {runs} ended')", "{}['lost']"]
    book.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    (tmp_path / "books").mkdir()
    nbformat.write(book, tmp_path / "books" / "slow.ipynb")
    with LabServer(tmp_path / "books", tmp_path / "home") as server, chromium() as browser:
        watched = open_page(browser)
        opened = Notebook(server, watched.page, "slow.ipynb", "dark")
        for run in (1, 2):
            opened.run_all()
            assert f"run {run} ended" in opened.panel.inner_text()
            assert opened.errors() == ["KeyError: 'lost'"]
        assert watched.page.evaluate("document.body.dataset.jpThemeName") == THEMES["dark"]
        opened.set_theme("light")
        assert watched.page.evaluate("document.body.dataset.jpThemeName") == THEMES["light"]
        assert watched.foreign == []
        assert server.alive()
        assert server.stop() == []
        assert not server.alive()
