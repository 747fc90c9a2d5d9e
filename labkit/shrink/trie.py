"""Many words as one regular expression that tries no letter twice."""

from __future__ import annotations

import re
from typing import Any


def any_of(words: str, separator: str | None = None) -> str:
    r"""A pattern for any of `words` as a word of its own, in any case. A `*` at the end stands for any ending (`\w*`).

    They are separated by blanks, or by `separator` where they hold blanks. An apostrophe may be straight or curly.
    """
    root: dict[str, Any] = {}
    for word in words.split(separator):
        node = root
        for letter in " ".join(word.split()):
            node = node.setdefault(letter, {})
        node[""] = {}
    return rf"\b{_pattern(root)}\b"


def _pattern(node: dict[str, Any]) -> str:
    """The endings from `node` on, the longest first, since `\\b` settles which of them fits."""
    ways = [_letter(letter) + _pattern(below) for letter, below in sorted(node.items()) if letter]
    if not ways:
        return ""
    inner = ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"
    return f"(?:{inner})?" if "" in node else inner


def _letter(letter: str) -> str:
    if letter == "*":
        return r"\w*+"
    if letter == "'":
        return "['’]"
    if letter == " ":
        return r"\s"
    both = {letter.lower(), letter.upper()}
    return f"[{''.join(sorted(both))}]" if len(both) == 2 and all(len(b) == 1 for b in both) else re.escape(letter)
