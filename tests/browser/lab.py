"""Drive a real JupyterLab (or Voilà) server on loopback with headless Chromium.

One `LabServer` and one `Browser` serve a whole session. The server works in its own copy of the notebooks with its own
settings and state folders, so that nothing a test does reaches the learner's files, and every process it starts carries a
mark in its environment, so that "nothing was left behind" can be checked rather than hoped for.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, Playwright, sync_playwright

REPO = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = REPO / "build" / "screenshots"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
_MARK = "LABKIT_BROWSER_RUN"

# Anything that Chromium would fetch by itself is off; --no-sandbox because CI containers run as root.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

# Every cell is laid out whether or not it is in view (screenshots and text searches see the whole notebook), and the
# server neither asks for news nor looks for updates.
_SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "checkForUpdates": False,
        "doNotDisturbMode": True,
        "fetchNews": "false",
    },
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": {"autosave": False},
}


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class LabServer:
    """A JupyterLab server in its own process group, serving a copy of `notebooks` from `home`/notebooks.

    `home` must not exist or be empty; it holds everything the server and its kernels write.
    """

    notebooks: Path
    home: Path
    app: str = "jupyterlab"
    extra_args: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    @property
    def root(self) -> Path:
        """The folder the server shows."""
        return self.home / "notebooks"

    @property
    def url(self) -> str:
        """Address of the server, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def show(self, notebook: Path, name: str) -> None:
        """Put an executed notebook beside the others, trusted, as one that was executed here would be."""
        shown = nbformat.read(notebook, as_version=4)
        nbformat.write(shown, self.root / name)
        NotebookNotary(data_dir=str(self.home / "data")).sign(shown)

    @property
    def log(self) -> Path:
        """The server's standard output and error."""
        return self.home / f"{self.app}.log"

    def __enter__(self) -> LabServer:
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            self.notebooks, self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        )
        settings = self.home / "settings"
        for name, value in _SETTINGS.items():
            path = settings / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        self.port = free_port()
        environment = {
            **os.environ,
            _MARK: self.mark,
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_CONFIG_DIR": str(self.home / "config"),
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.home / "workspaces"),
            "IPYTHONDIR": str(self.home / "ipython"),
            "LABKIT_STATE": str(self.home / "state"),
            "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        command = [sys.executable, "-m", self.app, *self._arguments()]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_up()
        return self

    def _arguments(self) -> list[str]:
        if self.app == "voila":
            return ["--no-browser", f"--port={self.port}", "--Voila.ip=127.0.0.1", *self.extra_args, str(self.root)]
        return [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
            "--expose-app-in-browser",
            "--LabApp.extension_manager=readonly",
            *self.extra_args,
        ]

    def _wait_until_up(self, seconds: float = 90) -> None:
        path = "/voila/static/" if self.app == "voila" else "/api"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + path, timeout=5):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        self.stop()
        raise RuntimeError(f"{self.app} did not come up on {self.url} within {seconds:.0f} s; the end of its log:\n{tail}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self, patience: float = 25) -> list[str]:
        """Stop the server as Ctrl-C would; return the command lines of what outlived it, after killing them by pid."""
        if self.process is None:
            return []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        deadline = time.monotonic() + patience
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        left = self.alive()
        for pid in left:
            with_suppressed_kill(pid)
        return list(left.values())

    def alive(self) -> dict[int, str]:
        """Processes that carry this server's mark, by pid: itself, its kernels, and whatever those started."""
        needle = f"{_MARK}={self.mark}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if needle in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended, or belongs to another user
        return found


def with_suppressed_kill(pid: int) -> None:
    """Kill `pid` if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Debian's Chromium, headless, unable to resolve any name but this machine's."""
    driver: Playwright
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS, headless=True)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page together with what it asked of other machines and said on its console."""

    page: Page
    foreign: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)


def open_page(browser: Chromium, width: int = 1600, height: int = 1000, *, dark: bool = False) -> Watched:
    """A fresh browser profile with one page, watching for requests that leave the machine."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    watched = Watched(context.new_page())

    def request_started(request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme in {"http", "https", "ws", "wss"} and address.hostname not in {"127.0.0.1", "localhost"}:
            watched.foreign.append(request.url)

    def said(message: Any) -> None:
        if message.type == "error":
            watched.console_errors.append(message.text)

    def request_failed(request: Any) -> None:
        # Playwright tells of a request although the page's own policy kept it from being made.
        if request.failure == "csp" and request.url in watched.foreign:
            watched.foreign.remove(request.url)

    context.on("request", request_started)
    context.on("requestfailed", request_failed)
    watched.page.on("console", said)
    watched.page.on("pageerror", lambda error: watched.console_errors.append(str(error)))
    return watched


class Notebook:
    """A notebook open in JupyterLab, seen through the browser."""

    def __init__(self, server: LabServer, page: Page, path: str, theme: str = "light") -> None:
        self.page = page
        self.path = path
        page.goto(f"{server.url}/lab/tree/{quote(path)}?token={server.token}&reset")
        page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored", timeout=60_000)
        page.evaluate("async () => { await window.jupyterapp.restored }")
        self.set_theme(theme)
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self.panel.locator(".jp-Cell").first.wait_for(timeout=60_000)
        page.wait_for_function(
            "() => { const p = window.jupyterapp.shell.currentWidget;"
            " return p && p.sessionContext && p.sessionContext.session && p.sessionContext.session.kernel }",
            timeout=60_000,
        )
        # Room for the notebook: the file browser is not what we look at.
        if page.evaluate("() => !window.jupyterapp.shell.leftCollapsed"):
            self.command("application:toggle-left-area")

    def command(self, name: str, **arguments: Any) -> None:
        """Run one of JupyterLab's commands, as its menus and shortcuts do."""
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def set_theme(self, theme: str) -> None:
        """Switch JupyterLab to its light or dark theme, and wait until it shows."""
        self.command("apputils:change-theme", theme=THEMES[theme])
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeName === {THEMES[theme]!r}")

    def run_all(self, timeout: float = 180) -> None:
        """Run > Run All Cells, and wait until the kernel is idle and no cell is waiting (`timeout` in seconds)."""
        # Not awaited: the command resolves when the run ends, and a failed cell would hide behind its rejection. The counts
        # from before tell a run that has not begun from one that has ended.
        self.page.evaluate(
            """() => {
                const cells = window.jupyterapp.shell.currentWidget.content.widgets;
                window.countsBefore = cells.map(c => c.model.executionCount ?? null);
                window.jupyterapp.commands.execute('notebook:run-all-cells');
            }"""
        )
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const kernel = panel.sessionContext.session?.kernel;
                const code = panel.content.widgets.filter(c => c.model.type === 'code' && c.model.sharedModel.source.trim());
                const started = code.length === 0
                    || panel.content.widgets.some((c, i) => (c.model.executionCount ?? null) !== window.countsBefore[i]);
                const prompts = code.map(c => c.promptNode?.textContent ?? '');
                return started && kernel?.status === 'idle' && !prompts.some(p => p.includes('*'));
            }""",
            timeout=timeout * 1000,
            polling=200,
        )
        self.page.wait_for_timeout(500)  # the last output's paint

    def errors(self) -> list[str]:
        """What went wrong in code cells, name and message, in order."""
        # From the notebook itself: how an error is drawn differs between versions of JupyterLab.
        return [
            str(error)
            for error in self.page.evaluate(
                """() => window.jupyterapp.shell.currentWidget.content.widgets
                    .filter(c => c.model.type === 'code')
                    .flatMap(c => c.model.outputs.toJSON())
                    .filter(o => o.output_type === 'error')
                    .map(o => `${o.ename}: ${o.evalue}`)"""
            )
        ]

    def scroller(self) -> Any:
        """The element that scrolls the notebook."""
        return self.panel.locator(".jp-WindowedPanel-outer").first

    def shoot(self, out: Path) -> list[Path]:
        """Screenshots of the whole notebook, one viewport at a time: `out` with -01, -02, … before its suffix."""
        out.parent.mkdir(parents=True, exist_ok=True)
        scroller = self.scroller()
        total, view = scroller.evaluate("e => [e.scrollHeight, e.clientHeight]")
        pictures: list[Path] = []
        step = max(view - 60, 200)  # a little overlap, so that no line is cut in both
        position, number = 0, 1
        while True:
            scroller.evaluate("(e, y) => { e.scrollTop = y }", position)
            self.page.wait_for_timeout(250)
            picture = out.with_name(f"{out.stem}-{number:02d}{out.suffix}")
            self.page.screenshot(path=str(picture))
            pictures.append(picture)
            if position + view >= total:
                return pictures
            position, number = position + step, number + 1
