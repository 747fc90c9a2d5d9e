"""The calculator as an app: under Voilà, with settings in the address."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest

from labkit.cost import Scenario, month
from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, LabServer, chromium, open_page
from tests.browser.measure import faint, redraw_times

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the app tested", allow_module_level=True)


FOREIGN_PARAMETERS = "&voila-theme=light&utm_source=mail"


def test_the_calculator_opens_with_the_settings_of_its_address(tmp_path: Path) -> None:
    scenario = Scenario(users=4_321, requests_per_user=3.7, cached_share=0.25, models=("openai/gpt-5", "openai/gpt-5-mini"))
    query = scenario.to_query() + FOREIGN_PARAMETERS
    with LabServer(REPO / "notebooks" / "apps", tmp_path, app="voila") as server, chromium() as browser:
        for theme in ("light", "dark"):
            watched = open_page(browser, 1280, 1000)
            page = watched.page
            address = f"{server.url}/voila/render/calculator.ipynb?{query}&theme={theme}"
            page.goto(address, wait_until="commit", timeout=120_000)
            page.locator("svg.marks").nth(1).wait_for(timeout=120_000)
            for label, readout in {"Users a day": "4321", "Requests per user": "3.7", "Cached share": "0.25"}.items():
                row = page.locator(".widget-inline-hbox", has_text=label).first
                assert row.locator(".widget-readout").inner_text() == readout
            chosen = page.locator(".widget-dropdown select")
            assert [chosen.nth(i).input_value() for i in range(2)] == list(scenario.models)
            cheapest = min(month(scenario), key=lambda row: row.total)
            titles = page.locator("svg.marks").first.locator("text").all_text_contents()
            assert f"{cheapest.name} is cheapest: ${cheapest.total:,.0f} a month" in titles
            # The address comes back whole, and what is no setting is named.
            assert scenario.to_query() in page.inner_text("body")
            assert [note.inner_text() for note in page.locator("[role=alert] li").all()] == [
                "there is no setting 'utm_source'"
            ]
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(SCREENSHOTS / f"calculator-voila-{theme}.png"), full_page=True)
            assert faint(page) == [], theme
            for column in page.locator(".widget-vbox", has_text="Traffic").all():
                assert column.evaluate("e => e.scrollWidth - e.clientWidth") <= 0, "the controls are cut off"
            times = redraw_times(page, page.locator("#rendered_cells"), "Output tokens")
            print(f"{theme}: key press to redrawn chart: median {statistics.median(times):.0f} ms of {len(times)}")
            assert watched.foreign == []
            # Voilà's own page links to icons on another host; the app's policy (voila.json) keeps the browser from asking.
            assert [said for said in watched.console_errors if "Content Security Policy" not in said] == []
            page.context.close()
        assert server.stop() == []
