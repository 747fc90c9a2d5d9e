"""The book's pictures as a browser draws them: no word is cut off, hidden or too faint, and nothing moves by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.browser.lab import CHROMIUM, chromium
from tests.browser.measure import faint
from tests.workbook.drawn import EXAMPLES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium", allow_module_level=True)

# What JupyterLab's two themes say of a page and of the text in it.
THEMES = {
    "light": "background:#fff;--jp-content-font-color1:rgba(0,0,0,.87);--jp-content-font-color2:rgba(0,0,0,.54)",
    "dark": "background:#111;--jp-content-font-color1:#fff;--jp-content-font-color2:rgba(255,255,255,.7)",
}
_WORDS = """svg => [...svg.querySelectorAll('text')].map(text => {
    const box = text.getBBox();
    const px = parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
    return {words: text.textContent, left: box.x, top: box.y, right: box.x + box.width, bottom: box.y + box.height, px};
})"""
_CLIPS = "() => [...document.querySelectorAll('.lkp-sweep')].map(e => getComputedStyle(e).clipPath)"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 900, "height": 700})


def show(page: Page, name: str, theme: str = "light", width: int = 720) -> None:
    page.set_content(
        f"<body style='margin:0;{THEMES[theme]}'><div style='width:{width}px'>{EXAMPLES[name].html}</div></body>"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_words_lie_within_the_picture_and_apart(page: Page, name: str) -> None:
    show(page, name)
    svg = page.locator(".lkp svg")
    _, _, width, height = map(float, (svg.get_attribute("viewBox") or "").split())
    found = svg.evaluate(_WORDS)
    for one in found:
        assert one["px"] >= 12
        assert 0 <= one["left"] <= one["right"] <= width, one
        assert 0 <= one["top"] <= one["bottom"] <= height, one
    for i, one in enumerate(found):
        for other in found[:i]:
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            assert across <= 0 or down <= 4, (one, other)  # a line's box is higher than its letters


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_words_are_not_faint(page: Page, name: str, theme: str) -> None:
    show(page, name, theme)
    page.evaluate("() => document.querySelector('.lkp svg').classList.add('marks')")  # as `faint` knows drawings
    assert faint(page) == []


def test_a_picture_fits_a_narrow_page(page: Page) -> None:
    show(page, "cascade", width=400)
    assert page.locator(".lkp svg").evaluate("e => e.getBoundingClientRect().width") == 400


def test_an_animation_waits_for_its_button_and_can_be_stopped(page: Page) -> None:
    show(page, "batch")
    still = page.evaluate(_CLIPS)
    page.wait_for_timeout(400)
    assert page.evaluate(_CLIPS) == still
    page.get_by_label("Play the animation").focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"before => String(({_CLIPS})()) !== before", arg=",".join(still))
    page.keyboard.press("Space")
    stopped = page.evaluate(_CLIPS)
    page.wait_for_timeout(600)
    assert page.evaluate(_CLIPS) == stopped


def test_who_asks_for_less_motion_gets_the_still_picture(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    try:
        show(page, "batch")
        assert not page.locator(".lkp-play").is_visible()
        assert set(page.evaluate(_CLIPS)) == {"none"}
    finally:
        page.emulate_media(reduced_motion="no-preference")
