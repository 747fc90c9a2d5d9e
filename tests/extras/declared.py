"""What pyproject.toml says that an install brings, and a Python that has nothing else."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distributions(requirements: Iterable[str]) -> Iterator[str]:
    """The canonical names of `requirements`; for our own extras, those of the packages behind them."""
    for line in requirements:
        wanted = Requirement(line)
        if canonicalize_name(wanted.name) == PROJECT["name"]:
            for name in wanted.extras:
                yield from distributions(PROJECT["optional-dependencies"][name])
        else:
            yield canonicalize_name(wanted.name)


CORE = set(distributions(PROJECT["dependencies"]))
EXTRAS = {name: set(distributions(lines)) for name, lines in PROJECT["optional-dependencies"].items()}


def brought(extra: str = "") -> set[str]:
    """The names of all packages that an install of the core brings, with those of `extra` if one is named."""
    asked = {(name, "") for name in CORE | (EXTRAS[extra] if extra else set())}
    seen = set(asked)
    while asked:
        name, part = asked.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # it is for another machine or Python
        for wanted in map(Requirement, lines):
            if wanted.marker is None or wanted.marker.evaluate({"extra": part}):
                parts = {(canonicalize_name(wanted.name), each) for each in ("", *wanted.extras)}
                asked |= parts - seen
                seen |= parts
    return {name for name, _ in seen}


def python_with(folder: Path, extra: str = "") -> list[str]:
    """A command that starts a Python with labkit and what an install brings, and nothing else of this environment.

    `folder` is filled with links to the files of the packages.
    """
    for name in brought(extra):
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))
    (folder / "labkit").symlink_to(REPO / "labkit")
    found = f"import runpy, sys; sys.path.append({str(folder)!r}); sys.argv.pop(0)"
    start = f"{found}; runpy.run_path(sys.argv[0], None, '__main__')"
    return [sys.executable, "-I", "-S", "-c", start]
