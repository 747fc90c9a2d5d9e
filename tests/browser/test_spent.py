"""The spending dashboard as an app, while its ledger is written: in both themes, live, and down to a receipt."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from labkit.ledger import Ledger
from labkit.spending import Slice, attribute
from labkit.workbook.spent_html import money
from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, LabServer, chromium, open_page
from tests.browser.measure import faint
from tests.spending.books import two_busy_days

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the app tested", allow_module_level=True)


def test_the_dashboard_follows_its_ledger_and_leads_to_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Ledger(tmp_path / "books.db")
    now = time.time()
    rows = two_busy_days(now - 1, 1_500)
    books.extend(rows[:1_400])
    monkeypatch.setenv("LABKIT_LEDGER", books.path)
    with LabServer(REPO / "notebooks" / "apps", tmp_path / "home", app="voila") as server, chromium() as browser:
        for theme, booked in (("light", 1_450), ("dark", 1_500)):
            watched = open_page(browser, 1280, 1900)
            page = watched.page
            page.goto(f"{server.url}/voila/render/spending.ipynb?theme={theme}", wait_until="commit", timeout=120_000)
            page.get_by_text(f"{len(books):,} attempts read").wait_for(timeout=120_000)
            books.extend(rows[len(books) : booked])  # while it is looked at
            page.get_by_text(f"{booked:,} attempts read").wait_for(timeout=60_000)
            midnight = now // 86_400 * 86_400
            table = attribute(Slice(books, midnight, now), ["organisation"]).sort_values("cost", ascending=False)
            assert f"of {table['attempts'].sum():,} attempts" in page.locator(".tiles").inner_text()
            names = page.locator("button[title^='Only this organisation']:visible")
            assert names.all_inner_texts() == table["organisation"].tolist()[:8]
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(SCREENSHOTS / f"spending-voila-{theme}.png"), full_page=True)
            assert faint(page) == [], theme

            first = names.first.inner_text()
            names.first.click()
            page.get_by_role("button", name=f"organisation: {first}").wait_for()
            page.locator("button[title='Its receipt']:visible").first.click()
            page.get_by_role("heading", name="Receipt").wait_for()
            receipt = page.locator(".widget-html", has=page.get_by_role("heading", name="Receipt")).inner_text()
            assert f"organisation {first} " in receipt
            key = re.search(r"key (k\d+)", receipt)
            assert key is not None
            of_key = [row for row in rows[:booked] if row.idempotency_key == key.group(1)]
            assert receipt.count("\n") >= len(of_key)
            for row in of_key:
                assert money(row.cost, "USD") in receipt
            assert faint(page) == [], theme
            assert page.locator(".lab-spent").evaluate("e => e.scrollWidth - e.clientWidth") <= 0, "the page is cut off"
            page.screenshot(path=str(SCREENSHOTS / f"spending-receipt-{theme}.png"), full_page=True)
            assert watched.foreign == []
            assert [said for said in watched.console_errors if "Content Security Policy" not in said] == []
            page.context.close()
        assert server.stop() == []
    books.close()
