"""The block viewer as a learner meets it: JupyterLab, a live engine under load, Debian's Chromium."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Locator, Page

from tests.browser.lab import CHROMIUM, REPO, SCREENSHOTS, THEMES, LabServer, Notebook, chromium, open_page
from tests.browser.measure import faint

pytestmark = [pytest.mark.browser, pytest.mark.live, pytest.mark.timeout(600)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the viewer tested", allow_module_level=True)

CONNECT = """
from labkit.engines import connect
from labkit.kvcache import watchable
from labkit.load import ExactLengths, closed_loop
from labkit.request import Message, Request
from labkit.workbook import watch_blocks
sizes = dict(num_gpu_blocks_override={blocks}, block_size=32, max_model_len=1024)
engine = await connect("vllm", "small", **sizes, **watchable(fps=10))
make = ExactLengths(str(engine.tokenizer_path), 1)
"""
WATCH = """
from pathlib import Path
start = make(200, 1)
words = start.messages[0].content
def request(n):
    alike = Request((Message("user", f"{{words}} {{n}}"),), max_tokens=150, extra=start.extra)
    return make(64, 200 + 47 * (n % 9)) if n % 3 else alike
async with watch_blocks(engine) as seen:
    for wave in range({waves}):
        await closed_loop(engine, [request(n) for n in range({people})], {people})
        if Path("enough").exists():
            break
print(seen.summary())
print("frames a second:", seen.fps)
"""
GOODBYE = "await engine.aclose()"
REPLAY = "() => document.querySelector('.lkb-controls')?.hidden === false"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def notebook(folder: Path, name: str, **sizes: int) -> Path:
    """A notebook that watches an engine of this size."""
    folder.mkdir(exist_ok=True)
    cells = [nbformat.v4.new_code_cell(source.format(**sizes).strip()) for source in (CONNECT, WATCH, GOODBYE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), folder / f"{name}.ipynb")
    return folder


def keep_widgets(home: Path) -> None:
    """The setting with which JupyterLab saves widgets in notebooks."""
    path = home / "settings" / "@jupyter-widgets" / "jupyterlab-manager" / "plugin.jupyterlab-settings"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"saveState": True}))


def drawn(viewer: Locator) -> Any:
    """The picture of the blocks as it is now, and how often it was drawn."""
    return viewer.evaluate("e => ({picture: e.querySelector('canvas').toDataURL(), frames: Number(e.dataset.frames)})")


def shown_rate(page: Page, viewer: Locator, seconds: float) -> float:
    """Pictures drawn a second."""
    before = viewer.evaluate("e => [Number(e.dataset.frames), performance.now()]")
    page.wait_for_timeout(1000 * seconds)
    after = viewer.evaluate("e => [Number(e.dataset.frames), performance.now()]")
    return float(1000 * (after[0] - before[0]) / (after[1] - before[1]))


@pytest.mark.parametrize(("name", "blocks", "people"), [("few", 64, 10), ("many", 2000, 64)])
def test_blocks_are_watched_live_and_stepped_through_afterwards(name: str, blocks: int, people: int, tmp_path: Path) -> None:
    source = notebook(tmp_path / "source", name, blocks=blocks, people=people, waves=1000)
    keep_widgets(tmp_path / "home")
    with LabServer(source, tmp_path / "home") as server, chromium() as browser:
        watched = open_page(browser, 1280, 1000)
        page = watched.page
        opened = Notebook(server, page, f"{name}.ipynb", "light")
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        viewer = page.locator(".lkb")
        page.wait_for_function("() => Number(document.querySelector('.lkb')?.dataset.frames) >= 10", timeout=240_000)
        viewer.scroll_into_view_if_needed()
        rate = shown_rate(page, viewer, 3)
        print(f"{name}: {rate:.1f} frames a second shown")
        assert rate >= 1, "ten are made, and a busy machine draws fewer"
        pictures = []
        for theme in ("dark", "light"):
            opened.set_theme(theme)
            page.wait_for_timeout(500)
            pictures.append(drawn(viewer)["picture"])
            page.screenshot(path=str(SCREENSHOTS / f"blocks-{name}-live-{theme}.png"))
        assert pictures[0] != pictures[1]
        before = drawn(viewer)
        page.wait_for_timeout(1000)
        assert drawn(viewer)["picture"] != before["picture"], "the blocks change while the engine runs"
        (server.root / "enough").touch()

        page.wait_for_function(REPLAY, timeout=240_000)
        page.wait_for_function("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
        assert opened.errors() == []
        assert page.locator(".lkb").count() == 1
        for theme in THEMES:
            opened.set_theme(theme)
            opened.shoot((SCREENSHOTS / f"blocks-{name}-replay-{theme}.png").resolve())
            assert faint(page) == [], theme
        print(page.locator(".jp-OutputArea-output", has_text="frames a second:").last.inner_text())
        step_through(page, page.locator(".lkb"))

        # Saved, and read later in another session, where no kernel knows of it.
        opened.command("docmanager:save")
        page.wait_for_timeout(1500)
        saved = server.root / f"{name}.ipynb"
        print(f"{name}: the notebook takes {saved.stat().st_size / 1024:.0f} KiB")
        assert saved.stat().st_size < 2 << 20
        shutil.copy(saved, server.root / "later.ipynb")
        Notebook(server, page, "later.ipynb", "light")
        page.wait_for_function(REPLAY, timeout=60_000)
        step_through(page, page.locator(".lkb"))
        assert watched.foreign == []
        assert server.stop() == []


def step_through(page: Page, viewer: Locator) -> None:
    """By keyboard: a moment on changes the picture, its number and the words for who cannot see it."""
    viewer.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    where, words = viewer.locator(".lkb-where"), viewer.locator("[role=status]")
    assert ", frame 1 of " in where.inner_text()
    first, said = drawn(viewer)["picture"], words.inner_text()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert ", frame 9 of " in where.inner_text()
    assert drawn(viewer)["picture"] != first
    assert words.inner_text() != said
    assert viewer.locator("canvas[role=img]").get_attribute("aria-label") == words.inner_text()
    viewer.locator("button").click()
    page.wait_for_function("() => !document.querySelector('.lkb-where').innerText.includes('frame 9 of')")
    viewer.locator("button").click()


def test_blocks_are_shown_under_voila(tmp_path: Path) -> None:
    source = notebook(tmp_path / "source", "app", blocks=64, people=10, waves=2)
    # Voilà's own page links to icons on another host; the policy of the lab's apps keeps the browser from asking. A widget
    # of our own is a module that the page makes itself.
    policy = (REPO / "notebooks" / "apps" / "voila.json").read_text()
    assert "script-src 'self'" in policy
    (source / "voila.json").write_text(policy.replace("script-src 'self'", "script-src 'self' blob:"))
    with LabServer(source, tmp_path / "home", app="voila") as server, chromium() as browser:
        watched = open_page(browser, 1280, 1000)
        page = watched.page
        page.goto(f"{server.url}/voila/render/app.ipynb?token={server.token}", wait_until="commit", timeout=240_000)
        page.wait_for_function(REPLAY, timeout=240_000)
        step_through(page, page.locator(".lkb"))
        page.screenshot(path=str(SCREENSHOTS / "blocks-voila.png"))
        assert watched.foreign == []
        assert server.stop() == []
