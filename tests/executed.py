"""Each chapter executed once on a live engine, for every test that looks at what came out."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from labkit.workbook.paths import repo_root
from labkit.workbook.run import Ran, run_all

OUT = Path(os.environ.get("LABKIT_NOTEBOOKS_OUT", repo_root() / "build" / "notebooks"))


@functools.cache
def executed(name: str) -> Ran:
    """The run of `name` as a learner leaves it, and its solutions in the same kernel."""
    (ran,) = run_all([name], OUT, profile="ci", kind="proved")
    return ran


def notebook(name: str) -> Path:
    """The executed notebook as a learner has it, outputs and widgets included."""
    executed(name)
    return OUT / "proved" / f"{name}.ipynb"
