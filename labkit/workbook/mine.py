"""The learner's own copies of the notebooks, in `mine/` beside `notebooks/`.

Running a notebook writes answers and outputs into it. Git tracks the originals and ignores the copies, so a learner's clone
stays clean and `git pull` works. The folder lies as deep as `notebooks/`, so the links of a notebook hold in its copy. A
copy that somebody worked in is never written to. One that was never saved follows its original.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from labkit.workbook.paths import notebooks_dir, repo_root

_ORIGINALS = ".originals.json"  # of each copy, the digest of the original that it was made from


def mine_dir() -> Path:
    """The folder of the learner's copies; it may not be there yet."""
    return repo_root() / "mine"


def lay_out() -> tuple[str, ...]:
    """Make the copies that are missing, and renew those that were never saved.

    Returns the names, such as "03_prompt_caching", of the copies that hold work and whose original has changed since.
    """
    made_from, outdated = _made_from(), []
    for name, original in _originals().items():
        copy = mine_dir() / f"{name}.ipynb"
        now = _digest(original)
        if not copy.exists() or (made_from.get(name) != now and _digest(copy) == made_from.get(name)):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, copy)
            made_from[name] = now
        elif made_from.get(name) != now:
            outdated.append(name)
    _write(made_from)
    return tuple(outdated)


def outdated(name: str) -> bool:
    """Whether the original of the notebook `name` has changed since the learner's copy was made; False without a copy."""
    original = _originals().get(name)
    made_from = _made_from().get(name)
    return original is not None and made_from is not None and made_from != _digest(original)


def renewal(name: str) -> str:
    """What to tell a learner whose copy of the notebook `name` is outdated."""
    return (
        f"{name} has a newer version. Yours is kept as it is, in mine/{name}.ipynb. For the new one, rename yours and start "
        "the workbook again."
    )


def _originals() -> dict[str, Path]:
    """The notebooks and their solutions by name, such as "00_start_here" and "solutions/00_start_here"."""
    folder = notebooks_dir()
    found = [*folder.glob("[0-9][0-9]_*.ipynb"), *(folder / "solutions").glob("[0-9][0-9]_*.ipynb")]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(found)}


def _made_from() -> dict[str, str]:
    try:
        kept = json.loads((mine_dir() / _ORIGINALS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no copies yet, or the list was lost: then every copy counts as somebody's work
    return {str(name): str(digest) for name, digest in kept.items()} if isinstance(kept, dict) else {}


def _write(made_from: dict[str, str]) -> None:
    target = mine_dir() / _ORIGINALS
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{_ORIGINALS}.{os.getpid()}")
    fresh.write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
    fresh.replace(target)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
