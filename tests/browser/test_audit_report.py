"""The audit's report in a browser: it asks for nothing, is read light and dark, and fits a phone and a sheet of paper."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.audit import AuditSettings, audit_logs, report_html
from labkit.cost import self_defined
from tests.browser.lab import CHROMIUM, chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium", allow_module_level=True)

CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)") return c } return "rgb(255, 255, 255)" };
  return [...document.querySelectorAll("h1, h2, p, td, th, caption, .tile b, .tile span, svg text")].map(e => {
    const style = getComputedStyle(e), [a, b] = [e.closest("svg") ? style.fill : style.color, behind(e)].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) }) }"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "id": f"r{i}", "timestamp": 1772442000 + 60 * i, "model": ("m", "cheap", "nobody-knows-it")[i % 3], "attempt": 1,
            "feature": f"a feature whose name is rather long, number {i % 4}",
            "finish_reason": ("stop", "length")[i % 9 == 0],
            "messages": [{"role": "user", "content": "Where is my order?" if i % 5 == 0 else f"Question {i}"}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 20 + i, "total_tokens": 720 + i},
        }
        for i in range(400)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("audit")
    (folder / "log").write_text("\n".join([*map(json.dumps, rows), "no JSON"]))
    prices = {"m": self_defined("m", "250", "1000"), "cheap": self_defined("cheap", "0.1", "0.4")}
    (folder / "report.html").write_text(report_html(audit_logs([folder / "log"], AuditSettings(prices=prices))))
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_can_be_read(report: Path, scheme: str, width: int) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(report.as_uri())
        ratios = page.evaluate(CONTRAST)
        assert len(ratios) > 60
        assert min(ratios) >= 4.5  # WCAG AA
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = "[...document.querySelectorAll('svg')].map(s => [s.getBBox().x, s.getBBox().x + s.getBBox().width])"
        drawn = page.evaluate(cut)
        assert len(drawn) == 2
        assert all(left >= 0 and right <= 900 for left, right in drawn), "a chart's words stand outside of it"
        assert (asked, said) == ([report.as_uri()], [])


def test_the_report_prints(report: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(color_scheme="dark")
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "ink costs, too"
        assert page.pdf(format="A4").startswith(b"%PDF")
