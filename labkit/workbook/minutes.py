"""How long a chapter takes a reader, counted from what the chapter holds, and what of it may be skipped.

Prose is read at 200 words a minute, as a text that one thinks about is (Brysbaert 2019 finds 238 for light prose), and
visible code at 15 lines a minute. A chart takes 20 s, one that moves 90 s, a prediction 30 s and a question 40 s. An
exercise says its own minutes; those of a long build are counted apart, since it is a project of its own. What the machine
takes is what the chapter's recording says, and 20 s for an engine to start.

A markdown cell tagged `further` begins a part that a reader in a hurry may skip. It ends at the next heading of its own
level or above.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.workbook.chapters import Chapter

FURTHER = "further"
MARK = "◇"
EXERCISE = re.compile(r"\{\{exercise (\d\d\.\d+)\}\}")
_HEADING = re.compile(r"^(#+) ", re.MULTILINE)
_WORD = re.compile(r"\w+")
_WORDS_A_MINUTE, _LINES_A_MINUTE = 200, 15
_SECONDS: dict[str, float] = {
    r"\b(show|draw_picture)\(": 20,
    r"\blive_chart\(": 90,
    r"\bbook\.predict(_choice)?\(": 30,
    r"\bbook\.quiz\(": 40,
    r"\bbook\.warm_up\(": 80,
}
_CONNECT_S = 20.0
_ROUND = 5


@dataclass(frozen=True, slots=True)
class Minutes:
    """Minutes for what everybody should read, for the parts that may be skipped, and for the long build."""

    core: float
    further: float
    build: float = 0.0

    @property
    def words(self) -> str:
        """All in a sentence, each rounded up to five minutes."""
        said = [f"{_rounded(self.core)} minutes"]
        said += [f"{_rounded(self.further)} more for the parts marked {MARK}"] if self.further else []
        said += [f"{_rounded(self.build)} more if you take on the long build"] if self.build else []
        return f"{', '.join(said[:-1])}, and {said[-1]}." if said[1:] else f"{said[0]}."


def is_further(cells: Sequence[Any]) -> list[bool]:
    """For each cell, whether it belongs to a part that may be skipped."""
    found, level = [], 0  # the level of the heading whose part is skipped; 0 outside of such parts
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = _HEADING.search(EXERCISE.sub("### ", cell.source))
            if FURTHER in cell.metadata.get("tags", ()):
                level = len(heading[1]) if heading else max(level, 3)
            elif heading and len(heading[1]) <= level:
                level = 0
        found.append(level > 0)
    return found


def marked(text: str) -> str:
    """The markdown of a part that may be skipped, with the mark in its first heading."""
    return _HEADING.sub(rf"\1 {MARK} ", text, count=1)


def lines_of(code: str) -> int:
    """How many lines of code a reader sees; empty ones do not count."""
    return sum(1 for line in code.splitlines() if line.strip())


def called(method: str, code: str) -> list[str]:
    """The ids that the code gives to a method of `book`, in order."""
    return re.findall(rf"book\.{method}\(\s*[\"']([^\"']+)[\"']", code)


def estimate(cells: Sequence[Any], contents: Chapter, folded: Sequence[bool], measured_s: Mapping[str, float]) -> Minutes:
    """The minutes of a chapter's cells.

    `folded` says for each cell whether its code is hidden; `measured_s` are the recorded seconds of each measurement.
    """
    parts, build = {False: 0.0, True: 0.0}, 0.0
    for cell, further, hidden in zip(cells, is_further(cells), folded, strict=True):
        if cell.cell_type == "markdown":
            parts[further] += len(_WORD.findall(cell.source)) / _WORDS_A_MINUTE
            exercises = [contents.exercise(id) for id in EXERCISE.findall(cell.source)]
            parts[further] += sum(each.minutes for each in exercises if not each.stages)
            build += sum(each.minutes for each in exercises if each.stages)
            continue
        if cell.cell_type != "code":
            continue
        lines = 0 if hidden else lines_of(cell.source)
        seconds: float = sum(each * len(re.findall(pattern, cell.source)) for pattern, each in _SECONDS.items())
        seconds += sum(measured_s.get(id, 0.0) for id in called("measure", cell.source))
        seconds += _CONNECT_S * ("book.connect(" in cell.source)
        parts[further] += lines / _LINES_A_MINUTE + seconds / 60
    return Minutes(parts[False], parts[True], build)


def _rounded(minutes: float) -> int:
    return max(_ROUND, _ROUND * math.ceil(minutes / _ROUND))
