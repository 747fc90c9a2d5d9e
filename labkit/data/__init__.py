"""Where the package keeps its small data: prices, hardware, model shapes. It ships with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["path"]


def path(*parts: str) -> Path:
    """The file or folder of data under `parts`, as in `path("prices", "hosts.json")`. Raises `FileNotFoundError`."""
    found = Path(__file__).parent.joinpath(*parts)
    if not found.exists():
        raise FileNotFoundError(f"the package has no data {'/'.join(parts)!r}; install it again")
    return found
