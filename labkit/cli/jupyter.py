"""Open the workbook: JupyterLab from this environment, on chapter 00."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from labkit.extras import extra
from labkit.workbook import notebooks_dir, repo_root

FIRST = "00_start_here.ipynb"


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that starts JupyterLab in the clone, on chapter 00, with the user's `arguments` at its end.

    If its port is taken, JupyterLab tries the next ones. Raises `FileNotFoundError` when the notebooks were not built.
    """
    first = notebooks_dir() / FIRST
    if not first.is_file():
        raise FileNotFoundError(f"no {FIRST} in {first.parent}; build the notebooks with `labkit notebooks build`")
    root = repo_root()
    options = [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{first.relative_to(root).as_posix()}",
        "--ServerApp.port_retries=100",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return [sys.executable, "-m", "jupyterlab", *options, *arguments]


def open_lab(arguments: Sequence[str]) -> int:
    """Run JupyterLab until it is stopped; returns its exit status. Raises `MissingExtra` where it is not installed."""
    line = command(arguments)
    with extra("workbook"):
        import jupyterlab  # noqa: F401 - asks only whether it is there
    try:
        return subprocess.run(line, check=False).returncode
    except KeyboardInterrupt:
        return 0
