"""Where the workbook's files are, whatever folder a notebook was started from.

All paths start at the repository root. It is found from the installed package first (an editable install points into the
repository) and from the working directory second, so a notebook never depends on its own location.
"""

from __future__ import annotations

import os
from pathlib import Path

_MARK = Path("notebooks") / "src"
LEDGER_VARIABLE = "LABKIT_LEDGER"
"""The environment variable that names the ledger of the spending dashboard's app."""


class RepositoryNotFound(FileNotFoundError):
    """The workbook's files are neither beside the package nor above the working directory, nor where `LABKIT_ROOT` says."""


def repo_root() -> Path:
    """The folder that holds `notebooks/`, `data/` and `labkit/`.

    The environment variable `LABKIT_ROOT` overrides the search. Raises `RepositoryNotFound`, which names the fix.
    """
    named = os.environ.get("LABKIT_ROOT")
    if named:
        root = Path(named).expanduser().resolve()
        if not (root / _MARK).is_dir():
            raise RepositoryNotFound(
                f"LABKIT_ROOT={named!r} has no {_MARK.as_posix()} in it; point it at the workbook's clone"
            )
        return root
    here = Path.cwd().resolve()
    for candidate in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (candidate / _MARK).is_dir():
            return candidate
    raise RepositoryNotFound(
        f"the workbook's files are neither beside the labkit package nor above the working directory {here}; "
        "start JupyterLab from the clone with `make lab`, or set LABKIT_ROOT to the clone's folder"
    )


def notebooks_dir() -> Path:
    """The learner's notebooks."""
    return repo_root() / "notebooks"


def sources_dir() -> Path:
    """The percent-format sources that the notebooks are generated from."""
    return repo_root() / _MARK


def source_names() -> tuple[str, ...]:
    """The names of the notebooks that have a source, such as "00_start_here", in order."""
    return tuple(sorted(path.stem for path in sources_dir().glob("[0-9][0-9]_*.py")))


def words_file() -> Path:
    """The words of the glossary."""
    return repo_root() / "docs" / "words.md"


def data_dir() -> Path:
    """Committed data: lab models, recordings, price tables."""
    return repo_root() / "data"


def chapter_recording(notebook: str) -> Path:
    """The committed recording of the chapter with that notebook's name; it may not be there yet."""
    return data_dir() / "recordings" / "chapters" / f"{notebook}.jsonl"


def state_dir() -> Path:
    """The folder of this user's own state: `LABKIT_STATE`, else `.labkit/` in the clone. It is created when missing.

    Raises `PermissionError`, which names the folder and the fix, when it cannot be created.
    """
    named = os.environ.get("LABKIT_STATE")
    state = Path(named).expanduser().resolve() if named else repo_root() / ".labkit"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(
            f"the workbook cannot create its state folder {state} ({error.strerror}); set LABKIT_STATE to a writable folder"
        ) from error
    return state
