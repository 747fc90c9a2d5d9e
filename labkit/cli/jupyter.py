"""Open the workbook in JupyterLab, or the calculator or the spending dashboard as an app, from this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit.extras import extra
from labkit.ledger import Ledger
from labkit.workbook import LEDGER_VARIABLE, lay_out, notebooks_dir, renewal, repo_root

FIRST = "00_start_here.ipynb"
CALCULATOR = Path("apps") / "calculator.ipynb"
DASHBOARD = Path("apps") / "spending.ipynb"
_HERE = "127.0.0.1"


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that starts JupyterLab in the clone, on the learner's copy of chapter 00.

    The user's `arguments` stand at its end. If its port is taken, JupyterLab tries the next ones. Raises `FileNotFoundError`
    when the notebooks were not built.
    """
    first = notebooks_dir() / FIRST
    if not first.is_file():
        raise FileNotFoundError(f"no {FIRST} in {first.parent}; build the notebooks with `labkit notebooks build`")
    options = [
        f"--ServerApp.root_dir={repo_root()}",
        f"--LabApp.default_url=/lab/tree/mine/{FIRST}",
        "--ServerApp.port_retries=100",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return [sys.executable, "-m", "jupyterlab", *options, *arguments]


def calculator_command(arguments: Sequence[str]) -> list[str]:
    """The command line that serves the calculator under Voilà, to this machine only; the user's `arguments` end it."""
    return [sys.executable, "-m", "voila", CALCULATOR.name, f"--Voila.ip={_HERE}", *arguments]


def dashboard_command(arguments: Sequence[str]) -> list[str]:
    """The command line that serves the spending dashboard under Voilà, to this machine only, with the user's `arguments`.

    Voilà refuses to start with a second address among these.
    """
    return [sys.executable, "-m", "voila", DASHBOARD.name, *arguments, f"--Voila.ip={_HERE}"]


def open_lab(arguments: Sequence[str]) -> int:
    """Lay out the learner's copies of the notebooks and run JupyterLab until it is stopped; returns its exit status.

    Says which copies have a newer original. Raises `MissingExtra` where JupyterLab is not installed.
    """
    line = command(arguments)
    with extra("workbook"):
        import jupyterlab  # noqa: F401 - asks only whether it is there
    for name in lay_out():
        print(renewal(name))
    return _until_stopped(line, repo_root())


def open_calculator(arguments: Sequence[str]) -> int:
    """Serve the calculator until it is stopped; returns the exit status. Raises `MissingExtra` where Voilà is missing."""
    with extra("workbook"):
        import voila  # noqa: F401 - asks only whether it is there
    return _until_stopped(calculator_command(arguments), (notebooks_dir() / CALCULATOR).parent)  # where voila.json lies


def open_dashboard(ledger_file: Path, arguments: Sequence[str]) -> int:
    """Serve the dashboard of the ledger in `ledger_file` until it is stopped; returns the exit status.

    Raises `FileNotFoundError` where there is no file, `LedgerError` where it is no ledger that this version reads, and
    `MissingExtra` where Voilà or DuckDB is missing.
    """
    if not ledger_file.is_file():
        raise FileNotFoundError(f"no ledger at {ledger_file}; chapters keep theirs under .labkit/ in the clone")
    with extra("workbook"):
        import duckdb  # noqa: F401 - asks only whether it is there
        import voila  # noqa: F401
    Ledger(ledger_file).close()  # refused here and now, and not in the page
    environment = {**os.environ, LEDGER_VARIABLE: str(ledger_file.absolute())}
    return _until_stopped(dashboard_command(arguments), (notebooks_dir() / DASHBOARD).parent, environment)


def _until_stopped(line: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> int:
    try:
        return subprocess.run(line, cwd=folder, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
