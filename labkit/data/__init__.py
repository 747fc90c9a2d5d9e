"""Where data is: the package's own, which ships with it (`path`), and what only the clone has (`clone_path`).

The package's is small: prices, hardware, model shapes. The clone's `data/` has the lab's models, recordings and hard pairs.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["clone_path", "path"]


def path(*parts: str) -> Path:
    """The file or folder of data under `parts`, as in `path("prices", "hosts.json")`. Raises `FileNotFoundError`."""
    found = Path(__file__).parent.joinpath(*parts)
    if not found.exists():
        raise FileNotFoundError(f"the package has no data {'/'.join(parts)!r}; install it again")
    return found


def clone_path(*parts: str) -> Path:
    """The file or folder under `parts` in the clone's `data/`, as in `clone_path("models", "small")`; it may be missing."""
    return Path(__file__).resolve().parents[2].joinpath("data", *parts)
