"""The chapters as a learner meets them: JupyterLab, a real kernel, a live engine, Debian's Chromium."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, THEMES, LabServer, Notebook, chromium, open_page

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
        assert "costs 12 euros" in page.inner_text(".jp-Notebook") or name != "00_start_here"
        if name == "01_cost_anatomy":
            times = [_move_a_slider(page) for _ in range(8)]
            print(f"slider to redrawn chart: median {statistics.median(times):.0f} ms of {len(times)}")
        for theme in THEMES:
            opened.set_theme(theme)
            assert faint_texts(page) == [], theme
            opened.shoot((SCREENSHOTS / f"{name}-{theme}.png").resolve())
        assert watched.foreign == []
        assert server.stop() == []


def test_text_too_faint_to_read_is_found() -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.set_content(
            "<body style='background:#fff'><div class='jp-OutputArea-output'><svg class='marks'>"
            "<text fill='#111'>clear</text><text fill='#ddd'>faint</text></svg></div></body>"
        )
        assert [found["text"] for found in faint_texts(page)] == ["faint"]
        page.evaluate("document.body.style.background = '#111'")
        assert [found["text"] for found in faint_texts(page)] == ["clear"]


def faint_texts(page: Page) -> list[dict[str, Any]]:
    """Texts of charts whose computed colour has less than 4.5:1 against what is behind them (WCAG 2.1, 1.4.3)."""
    found: list[dict[str, Any]] = page.evaluate(
        """() => {
            const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
            const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = parse(getComputedStyle(e).backgroundColor);
                    if (c.length && (c[3] ?? 1) > 0.5) return c;
                }
                return [255, 255, 255];
            };
            const faint = [];
            for (const text of document.querySelectorAll('.jp-OutputArea-output svg.marks text')) {
                const style = getComputedStyle(text);
                if (!text.textContent.trim() || style.opacity === '0') continue;
                const fill = style.fill === 'none' ? style.color : style.fill;
                const [a, b] = [light(parse(fill)), light(behind(text.closest('svg').parentElement))];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (ratio < 4.5) faint.push({text: text.textContent, fill, ratio: Math.round(10 * ratio) / 10});
            }
            return faint;
        }"""
    )
    return found


def _move_a_slider(page: Page) -> float:
    """Press a key on the dashboard's first slider; milliseconds from the press to the redrawn chart."""
    dashboard = page.locator(".jp-OutputArea-output", has_text="Users a day").first
    row = dashboard.locator(".widget-inline-hbox", has_text="Users a day").first
    row.locator(".noUi-handle").focus()
    page.evaluate(
        """node => {
            const words = () => { const s = node.querySelector('svg.marks'); return s && s.innerHTML; };
            const before = words();
            window.redrawn = new Promise(done => {
                document.addEventListener('keydown', () => {
                    const pressed = performance.now();
                    const look = () => {
                        const now = words();
                        if (now && now !== before) done(performance.now() - pressed);
                        else requestAnimationFrame(look);
                    };
                    look();
                }, {once: true, capture: true});
            });
        }""",
        dashboard.element_handle(),
    )
    page.keyboard.press("ArrowRight")
    took: float = page.evaluate("() => Promise.race([window.redrawn, new Promise(r => setTimeout(() => r(null), 20000))])")
    assert took is not None, "the chart did not follow the slider"
    return took
