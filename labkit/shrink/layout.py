"""The lines of a text, and which of them are prose: where white space says nothing and a sentence may be said once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

_FENCE = re.compile(r"\s*(```|~~~|\"\"\"|''')")
_NO_PROSE = re.compile(r"[ \t{}\[<>|#*+=\\$%&/]|[-•–] |\d+[.)] |.*[|\t]|[\w.\"'\-]+:(?: |$)")
_RUN = re.compile(r"(?<=\S) {2,}(?=\S)")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“]*“|«[^»]*»|`[^`]*`|(?<!\w)'[^']*'(?!\w)")

Kind = Literal["blank", "prose", "other", "fixed"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line from `start` to `end` (without its blanks at the end and its line end, which reaches to `next`).

    Its kind is "blank", "prose", "other" (lists, headings, keys, rows) or "fixed" (indented, or between fences).
    """

    text: str
    start: int
    end: int
    next: int
    kind: Kind


def lines_of(text: str) -> tuple[Line, ...]:
    """All lines of `text`."""
    found, at, fence = [], 0, ""
    for piece in text.split("\n"):
        body = piece.removesuffix("\r").rstrip(" \t")
        mark = _FENCE.match(piece)
        fenced = bool(fence) or mark is not None
        if mark is not None and (not fence or fence == mark[1]):
            closes = piece.count(mark[1]) % 2 == 0  # opened and closed in one line
            fence = fence if closes else "" if fence else mark[1]
        kind: Kind = "fixed" if fenced else "blank" if not body else "prose"
        if kind == "prose" and _NO_PROSE.match(body):
            kind = "fixed" if body[0] in " \t" else "other"
        end = at + len(piece) + 1
        found.append(Line(body, at, at + len(body), min(end, len(text)), kind))
        at = end
    return _with_columns(found)


def _with_columns(lines: Sequence[Line]) -> tuple[Line, ...]:
    """`lines`, where neighbours with words that begin in the same column after a run of blanks are rows of a table."""
    columns = [frozenset(m.end() for m in _RUN.finditer(line.text)) for line in lines]
    beside = [frozenset[int](), *columns, frozenset[int]()]
    return tuple(
        Line(line.text, line.start, line.end, line.next, "other")
        if line.kind == "prose" and own & (beside[number] | beside[number + 2])
        else line
        for number, (line, own) in enumerate(zip(lines, columns, strict=True))
    )


def runs_of_blanks(line: Line) -> Iterator[tuple[int, int]]:
    """Blanks after the first one, in each run inside of a line of prose, outside of quotes; as (start, end) in the text."""
    if line.text.count('"') % 2 or line.text.count("`") % 2:
        return
    quoted = [m.span() for m in _QUOTED.finditer(line.text)]
    for run in _RUN.finditer(line.text):
        if not any(start <= run.start() < end for start, end in quoted):
            yield line.start + run.start() + 1, line.start + run.end()


def paragraphs_of(lines: Sequence[Line]) -> Iterator[tuple[Line, ...]]:
    """Runs of lines that are not blank, in order."""
    own: list[Line] = []
    for line in lines:
        if line.kind == "blank":
            if own:
                yield tuple(own)
            own = []
        else:
            own.append(line)
    if own:
        yield tuple(own)
