"""How lists of words are written down here: as one text."""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """The words of `text`, which white space keeps apart."""
    return text.split()
