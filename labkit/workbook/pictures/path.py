"""A request on its way through a stack of levers to an engine, and its answer on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, Sheet

_LEFT, _WIDE, _TALL, _GAP = 4.0, 530.0, 54.0, 28.0
_TURN = 70.0  # px from a box's edge to the way down and the way up


@dataclass(frozen=True, slots=True)
class Station:
    """A lever on the way: its `name`, what it `does`, and whether it `answers` some requests without what lies below."""

    name: str
    does: str
    answers: bool = False


def request_path(levers: Sequence[Station], *, engine: str = "engine") -> Picture:
    """The way of a request from the caller (above) through `levers`, the outermost first, to the engine (below).

    Raises `InvalidValue` for no or more than eight levers, and for words that do not fit.
    """
    if not 1 <= len(levers) <= 8:
        raise InvalidValue(f"{len(levers)} levers; a picture shows one to eight")
    sheet = Sheet()
    right = _LEFT + _WIDE
    answering = [lever for lever in levers if lever.answers]
    for row, (name, does, colour) in enumerate(
        [
            ("your code", "makes a request, takes an answer", None),
            *((lever.name, lever.does, PALETTE["green" if lever.answers else "blue"]) for lever in levers),
            (engine, "computes", PALETTE["orange"]),
        ]
    ):
        y = 4 + row * (_TALL + _GAP)
        sheet.box(_LEFT, y, _WIDE, _TALL, colour, thick=colour is None)
        sheet.words(_LEFT + _WIDE / 2, y + 20, name, bold=True, room=_WIDE - 2 * _TURN - 16)
        sheet.words(_LEFT + _WIDE / 2, y + 38, does, size=SMALL, room=_WIDE - 2 * _TURN - 16)
        if row:
            sheet.line([(_LEFT + _TURN, y - _GAP), (_LEFT + _TURN, y)], arrow=True, thick=True)
            sheet.line([(right - _TURN, y), (right - _TURN, y - _GAP)], arrow=True, thick=True)
        if row == 1:
            sheet.words(_LEFT + _TURN + 10, y - _GAP / 2 + 4, "request", anchor="start", size=SMALL)
            sheet.words(right - _TURN - 10, y - _GAP / 2 + 4, "answer", anchor="end", size=SMALL)
        if 0 < row <= len(levers) and levers[row - 1].answers:
            down, up, low = _LEFT + _TURN, right - _TURN, y + _TALL - 7
            sheet.line([(down, y), (down, low), (up, low), (up, y)], arrow=True, dashed=True)
            sheet.words(right + 12, y + 23, "may answer: what is", anchor="start", size=SMALL)
            sheet.words(right + 12, y + 40, "below is not asked", anchor="start", size=SMALL)
    told = [f"{lever.name} ({lever.does}{'; may answer by itself' if lever.answers else ''})" for lever in levers]
    return sheet.picture(
        4 + (len(levers) + 2) * (_TALL + _GAP) - _GAP + 4,
        title="A request's way through a stack of levers",
        alt=f"A request goes from your code through {', then '.join(told)}, to the {engine}; the answer comes back "
        "the same way.",
        caption="A request goes down through the levers to the engine and its answer comes up the same way."
        + (f" May answer without the engine: {', '.join(lever.name for lever in answering)}." if answering else ""),
    )
