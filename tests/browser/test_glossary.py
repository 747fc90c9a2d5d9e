"""A word of a chapter, clicked in JupyterLab as `make lab` starts it, opens its entry in the glossary."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.lab import CHROMIUM, REPO, LabServer, Notebook, chromium, open_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip(f"no browser at {CHROMIUM}: install Debian's chromium to see the glossary tested", allow_module_level=True)


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/solutions"])
def test_a_word_opens_its_entry(folder: str, tmp_path: Path) -> None:
    root = tmp_path / "clone"
    for name in ("docs", "notebooks"):
        shutil.copytree(REPO / name, root / name)
    with LabServer(root, tmp_path / "lab") as server, chromium() as browser:
        page = open_page(browser, 1280, 900).page
        Notebook(server, page, f"{folder}/02_latency_anatomy.ipynb")
        page.locator(".jp-Notebook a", has_text="Goodput").first.click()
        page.locator(".jp-MarkdownViewer h3", has_text="goodput").wait_for(timeout=60_000)
        page.wait_for_function(
            """() => {
                const top = e => e.getBoundingClientRect().top;
                const view = document.querySelector('.jp-MarkdownViewer');
                const entry = [...view.querySelectorAll('h3')].find(h => h.textContent.startsWith('goodput'));
                return Math.abs(top(entry) - top(view)) < 100;
            }""",
            timeout=60_000,
        )
        assert server.stop() == []
