"""The measures themselves: what is too faint is found, what is not is left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.browser.lab import CHROMIUM, chromium
from tests.browser.measure import faint, redraw_times

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


def chart(page: Page, drawn: str, background: str = "#fff") -> list[str]:
    page.set_content(
        f"<body style='background:{background};color:#777'><svg class='marks' width='300' height='100'>{drawn}</svg></body>"
    )
    return [f"{found['what']} {found['words']}".strip() for found in faint(page)]


def test_a_text_is_held_against_what_is_behind_it(page: Page) -> None:
    texts = "<text y='20' fill='#111'>dark</text><text y='60' fill='#ddd'>pale</text>"
    assert chart(page, texts, "#fff") == ["text pale"]
    assert chart(page, texts, "#111") == ["text dark"]
    bar = "<path d='M0,45h300v30h-300z' fill='#003a5c'></path>"
    assert chart(page, bar + texts, "#fff") == []  # the pale one lies on a dark bar
    assert chart(page, texts + bar.replace("#003a5c", "#fff"), "#111") == ["text dark"]  # what comes later lies above


@pytest.mark.parametrize(
    ("ratio_is", "colour", "refused"), [("4.54", "#767676", False), ("4.48", "#777777", True), ("1.97", "#00000050", True)]
)
def test_the_border_lies_at_wcags_ratio(ratio_is: str, colour: str, refused: bool, page: Page) -> None:
    assert bool(chart(page, f"<text y='20' fill='{colour}'>grey</text>")) == refused, ratio_is


def test_faintness_by_opacity_is_found_wherever_it_is_set(page: Page) -> None:
    for attribute in ("opacity='.3'", "fill-opacity='.3'", "style='opacity:.3'"):
        assert chart(page, f"<text y='20' fill='#000' {attribute}>x</text>") == ["text x"]
        assert chart(page, f"<g {attribute}><text y='20' fill='#000'>x</text></g>") == ["text x"]


def test_large_text_marks_and_axes_need_three_to_one(page: Page) -> None:
    assert chart(page, "<text y='40' font-size='24' fill='#888'>large</text>") == []  # 3.54:1
    assert chart(page, "<text y='40' font-size='24' fill='#aaa'>large</text>") == ["text large"]
    mark = "<g class='role-mark'><path d='M0,0h9v9h-9z' fill='{}' aria-label='bar'></path></g>"
    assert chart(page, mark.format("#888")) == []
    assert chart(page, mark.format("#aaa")) == ["mark bar"]
    tick = "<g class='role-axis-tick'><line x2='9' stroke='{}'></line></g>"
    assert chart(page, tick.format("currentColor")) == []  # #777
    assert chart(page, tick.format("#bbb")) == ["axis"]


def test_text_of_an_output_is_held_against_the_layers_behind_it(page: Page) -> None:
    layers = "<div class='jp-OutputArea-output' style='background:{};color:#fff'><p>words</p></div>"
    page.set_content(layers.format("#0008"))  # white on half black over white
    assert [found["words"] for found in faint(page)] == ["words"]
    page.set_content(layers.format("#000d"))
    assert faint(page) == []


def test_a_page_with_nothing_to_look_at_passes_for_nothing(page: Page) -> None:
    page.set_content("<p>no chart</p>")
    with pytest.raises(AssertionError, match="nothing to look at"):
        faint(page)


def test_a_redraw_is_timed_from_the_press_to_the_change(page: Page) -> None:
    page.set_content(
        """<div id='board'><div class='widget-inline-hbox'>Users<b class='noUi-handle' tabindex='0'>o</b></div>
        <svg class='marks'></svg></div><script>
        document.onkeydown = () => setTimeout(() => { document.querySelector('svg').innerHTML += '<g></g>' }, 40)</script>"""
    )
    times = redraw_times(page, page.locator("#board"), "Users", presses=3)
    assert len(times) == 3
    assert all(time >= 40 for time in times)
