"""The chapters as a learner meets them: JupyterLab, a real kernel, a live engine, Debian's Chromium."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest

from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, THEMES, LabServer, Notebook, chromium, open_page
from tests.browser.measure import faint, redraw_times

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(900)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the chapters tested", allow_module_level=True)

DRAWN = ".jp-OutputArea-output svg.marks"
CHARTS = {"00_start_here": 2, "01_cost_anatomy": 5}


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb")))
def test_a_chapter_runs_in_jupyterlab_and_can_be_read_in_both_themes(name: str, tmp_path: Path) -> None:
    with LabServer(REPO / "notebooks", tmp_path) as server, chromium() as browser:
        watched = open_page(browser, 1280, 1000)
        page = watched.page
        opened = Notebook(server, page, f"{name}.ipynb", "light")
        opened.run_all(600)
        assert opened.errors() == []
        assert page.locator(DRAWN).count() >= CHARTS.get(name, 3)
        if name == "00_start_here":
            assert "costs 12 euros" in page.inner_text(".jp-Notebook")
        if name == "01_cost_anatomy":
            dashboard = page.locator(".jp-OutputArea-output", has_text="Users a day").first
            times = redraw_times(page, dashboard, "Users a day")
            print(f"key press to redrawn chart: median {statistics.median(times):.0f} ms of {len(times)}")
        for theme in THEMES:
            opened.set_theme(theme)
            opened.shoot((SCREENSHOTS / f"{name}-{theme}.png").resolve())
            assert faint(page) == [], theme
        assert watched.foreign == []
        assert server.stop() == []
