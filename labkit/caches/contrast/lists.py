"""How the lists of words in this package are written: as one text."""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of `text`, separated by white space."""
    return text.split()
