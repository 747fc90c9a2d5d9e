"""The calculator as an app: under Voilà, with settings in the address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.cost import Scenario, month
from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, LabServer, chromium, open_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the app tested", allow_module_level=True)


def test_the_calculator_opens_with_the_settings_of_its_address(tmp_path: Path) -> None:
    scenario = Scenario(users=4_321, cached_share=0.25)
    with LabServer(REPO / "notebooks" / "apps", tmp_path, app="voila") as server, chromium() as browser:
        watched = open_page(browser, 1280, 1000)
        page = watched.page
        page.goto(f"{server.url}/voila/render/calculator.ipynb?{scenario.to_query()}&token={server.token}")
        page.locator("svg.marks").nth(1).wait_for(timeout=120_000)
        row = page.locator(".widget-inline-hbox", has_text="Users a day").first
        assert row.locator(".widget-readout").inner_text().replace(",", "").replace(" ", "") == "4321"
        cheapest = min(month(scenario), key=lambda m: m.total)
        titles = " ".join(page.locator("svg.marks").first.locator("text").all_inner_texts())
        assert f"{cheapest.name} is cheapest: ${cheapest.total:,.0f} a month" in titles
        assert "Not changed" not in page.inner_text("body")
        assert "make no sense" not in page.inner_text("body")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(SCREENSHOTS / "calculator-voila.png"), full_page=True)
        assert watched.foreign == []
        assert server.stop() == []
