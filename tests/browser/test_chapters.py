"""The chapters as a learner meets them: JupyterLab, a real kernel, a live engine, Debian's Chromium."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, LabServer, Notebook, chromium, open_page

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(900)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the chapters tested", allow_module_level=True)

DRAWN = ".jp-OutputArea-output svg.marks"


@pytest.mark.parametrize(("name", "theme", "charts"), [("00_start_here", "light", 2), ("01_cost_anatomy", "dark", 5)])
def test_a_chapter_runs_in_jupyterlab(name: str, theme: str, charts: int, tmp_path: Path) -> None:
    with LabServer(REPO / "notebooks", tmp_path) as server, chromium() as browser:
        watched = open_page(browser, 1280, 1000, dark=theme == "dark")
        page = watched.page
        opened = Notebook(server, page, f"{name}.ipynb", theme)
        opened.run_all(600)
        assert opened.errors() == []
        assert page.locator(DRAWN).count() >= charts
        assert "costs 12 euros" in page.inner_text(".jp-Notebook") or name != "00_start_here"
        if name == "01_cost_anatomy":
            _move_a_slider(page)
        opened.shoot((SCREENSHOTS / f"{name}-{theme}.png").resolve())
        assert watched.foreign == []
        assert server.stop() == []


def _move_a_slider(page) -> None:
    dashboard = page.locator(".jp-OutputArea-output", has_text="Users a day").first
    monthly = dashboard.locator("svg.marks").first
    before = monthly.get_attribute("aria-label") or monthly.inner_html()
    row = dashboard.locator(".widget-inline-hbox", has_text="Users a day").first
    row.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([node, before]) => { const svg = node.querySelector('svg.marks');"
        " return svg && (svg.getAttribute('aria-label') || svg.innerHTML) !== before; }",
        arg=[dashboard.element_handle(), before],
        timeout=20_000,
    )
