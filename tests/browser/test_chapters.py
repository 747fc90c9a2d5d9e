"""The chapters as a learner meets them: in JupyterLab, drawn by Debian's Chromium, in both themes.

Each is opened as it was executed on a live engine (`tests.executed`), with its charts and its widgets' saved state. The one
with a dashboard is run in the page itself, kernel and all; so are the block viewer (`test_blocks`) and the calculator as an
app (`test_voila`), the other widgets that talk with their kernel.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, THEMES, LabServer, Notebook, chromium, open_page
from tests.browser.measure import faint, redraw_times
from tests.executed import executed, notebook

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(1200)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the chapters tested", allow_module_level=True)

CHAPTERS = sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb"))
DRAWN = ".jp-OutputArea-output svg.marks"
LIVE = "01_cost_anatomy"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    with LabServer(REPO / "notebooks", tmp_path_factory.mktemp("lab")) as running:
        yield running
        assert running.stop() == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_executed_chapter_can_be_read_in_both_themes(name: str, server: LabServer, browser: Browser) -> None:
    server.show(notebook(name), f"executed-{name}.ipynb")
    watched = open_page(browser, 1280, 1000)
    page = watched.page
    opened = Notebook(server, page, f"executed-{name}.ipynb", "light")
    page.wait_for_function(f"() => document.querySelectorAll('{DRAWN}').length >= {executed(name).charts}", timeout=180_000)
    if name == "00_start_here":
        assert "costs 12 euros" in page.inner_text(".jp-Notebook")
    assert page.locator(".jp-OutputArea-output :text('Error displaying widget')").count() == 0
    for theme in THEMES:
        opened.set_theme(theme)
        page.wait_for_timeout(1000)
        assert faint(page) == [], theme
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"))
    assert watched.foreign == []
    page.context.close()


def test_a_dashboard_follows_its_sliders(server: LabServer, browser: Browser) -> None:
    watched = open_page(browser, 1280, 1000)
    page = watched.page
    opened = Notebook(server, page, f"{LIVE}.ipynb", "light")
    opened.run_all(600)
    assert opened.errors() == []
    look = page.get_by_role("button", name="Show the result anyway")
    veils = page.locator(".lab-veil").count()
    assert veils
    for left in reversed(range(veils)):  # what is below each stays folded until somebody commits, or looks
        look.first.click()
        page.wait_for_function("n => document.querySelectorAll('.lab-veil').length <= n", arg=left, timeout=30_000)
    assert page.locator(DRAWN).count() >= 5
    dashboard = page.locator(".jp-OutputArea-output", has_text="Users a day").first
    times = redraw_times(page, dashboard, "Users a day")
    print(f"key press to redrawn chart: median {statistics.median(times):.0f} ms of {len(times)}")
    for theme in THEMES:
        opened.set_theme(theme)
        opened.shoot((SCREENSHOTS / f"{LIVE}-{theme}.png").resolve())
        assert faint(page) == [], theme
    assert watched.foreign == []
    page.context.close()
