"""Look at a notebook: `python -m tests.browser.shoot NOTEBOOK [--theme dark] [--width 1280] [--out x.png]`.

Opens a copy of NOTEBOOK in JupyterLab, runs all of it (`--no-run` shows it as saved) and writes a screenshot per screenful:
x-01.png, x-02.png, … Exits with 1 when the notebook showed an error or the page asked for anything outside this machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.browser.lab import SCREENSHOTS, THEMES, LabServer, Notebook, chromium, open_page


def main(argv: list[str] | None = None) -> int:
    """Take the pictures; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.shoot", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--theme", choices=[*THEMES], default="light")
    parser.add_argument("--width", type=int, default=1600, help="of the window, px")
    parser.add_argument("--height", type=int, default=1000, help="of the window, px")
    parser.add_argument("--out", type=Path, help="PNG path; default build/screenshots/<notebook>-<theme>.png")
    parser.add_argument("--no-run", action="store_true", help="show the notebook as saved, trusted")
    parser.add_argument("--timeout", type=float, default=600, help="for the whole run, s")
    given = parser.parse_args(argv)
    notebook: Path = given.notebook.resolve()
    if not notebook.is_file():
        parser.error(f"{given.notebook} is not a file")
    out: Path = given.out or SCREENSHOTS / f"{notebook.stem}-{given.theme}.png"
    with (
        tempfile.TemporaryDirectory(prefix="labkit-shoot-", ignore_cleanup_errors=True) as home,
        LabServer(_alone(notebook, Path(home) / "shown"), Path(home) / "home") as server,
        chromium() as browser,
    ):
        watched = open_page(browser, given.width, given.height, dark=given.theme == "dark")
        if given.no_run:
            server.show(notebook, notebook.name)
        opened = Notebook(server, watched.page, notebook.name, given.theme)
        if not given.no_run:
            opened.run_all(given.timeout)
        for picture in opened.shoot(out.resolve()):
            print(picture)
        errors = opened.errors()
        for error in errors:
            print(f"error output: {error}", file=sys.stderr)
        for message in watched.console_errors:
            print(f"console: {message}", file=sys.stderr)
        for address in watched.foreign:
            print(f"asked for {address}", file=sys.stderr)
        left = server.stop()
        for command in left:
            print(f"left behind (killed): {command}", file=sys.stderr)
    return 1 if errors or watched.foreign or left else 0


def _alone(notebook: Path, folder: Path) -> Path:
    """A folder that holds a copy of the notebook and nothing else: what lies beside it may be the whole of a disk."""
    folder.mkdir()
    shutil.copyfile(notebook, folder / notebook.name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
