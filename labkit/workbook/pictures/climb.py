"""A cascade: how many requests the small model ends, and how many go up."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, Sheet

_FULL = 110.0  # px for all requests
_TOP = 46.0
_MIDDLE, _BOTTOM = _TOP + _FULL / 2, _TOP + _FULL
_SMALL, _LARGE = PALETTE["blue"], PALETTE["orange"]


def cascade(share_up: float, checks: Sequence[str], *, of: int = 100) -> Picture:
    """Of `of` requests, the share `share_up` (0 to 1) fails one of the `checks` (named) and goes up to the large model.

    Raises `InvalidValue` for a share outside of 0 to 1, and for no or more than four checks.
    """
    if not 0 <= share_up <= 1:
        raise InvalidValue(f"share_up is {share_up}; it is a share of the requests, 0 to 1")
    if not 1 <= len(checks) <= 4:
        raise InvalidValue(f"{len(checks)} checks; name one to four of them")
    if of < 1:
        raise InvalidValue(f"of is {of}; draw at least one request")
    up = round(of * share_up)
    sheet = Sheet()
    _asked(sheet, of, checks)
    _delivered(sheet, of, of - up, share_up)
    bottom = _thrown_away(sheet, up, share_up) if up else _BOTTOM + 20
    return sheet.picture(
        bottom,
        title="A cascade",
        alt=f"Of {of:,} requests, all are first answered by the small model. {of - up:,} of its answers pass the checks "
        f"({', '.join(checks)}) and are delivered. {up:,} do not, are thrown away, and the large model answers instead.",
        caption=f"{of:,} answers take {of + up:,} calls: all requests go to the small model, and {up:,} of them also to the "
        "large one. Who goes up waits for both.",
    )


def _asked(sheet: Sheet, of: int, checks: Sequence[str]) -> None:
    """All requests, the small model, and the checks of its answers."""
    for left, right in ((76, 134), (240, 296)):
        sheet.area([(left, _TOP), (right, _TOP), (right, _BOTTOM), (left, _BOTTOM)], _SMALL)
    sheet.words(0, _MIDDLE - 4, f"{of:,}", anchor="start", bold=True, room=72)
    sheet.words(0, _MIDDLE + 13, "requests", anchor="start", room=72)
    _model(sheet, 134, _TOP - 12, 106, _FULL + 24, _SMALL, "small model", f"{of:,} calls")
    sheet.box(296, _TOP - 12, 144, _FULL + 24, dashed=True)
    sheet.words(368, _TOP + 10, "checks", bold=True)
    for row, check in enumerate(checks):
        sheet.words(368, _TOP + 34 + 21 * row, check, size=SMALL, room=140)


def _delivered(sheet: Sheet, of: int, passed: int, share_up: float) -> None:
    split = _BOTTOM - _FULL * share_up
    if passed:
        sheet.area([(440, _TOP), (594, _TOP), (594, split), (440, split)], _SMALL)
        sheet.words(517, (_TOP + split) / 2 + 4.5, f"{passed:,} pass")
    sheet.words(602, _MIDDLE - 4, "delivered", anchor="start", bold=True)
    sheet.words(602, _MIDDLE + 13, f"{of:,} answers", anchor="start")


def _thrown_away(sheet: Sheet, up: int, share_up: float) -> float:
    """The answers that fail, and the large model that answers in their place; returns where that ends."""
    thick, top = _FULL * share_up, 184.0
    tall = max(thick, 56.0) + 12
    middle = top + tall / 2
    low, high = middle + thick / 2, middle - thick / 2
    sheet.area([(440, _BOTTOM - thick), (490, high), (490, low), (440, _BOTTOM)], _LARGE)
    sheet.words(492, 166, f"{up:,} fail", anchor="start", room=150)
    _model(sheet, 490, top, 92, tall, _LARGE, "large", f"{up:,} calls")
    sheet.line([(582, middle), (650, middle), (650, _MIDDLE + 24)], _LARGE, arrow=True, thick=True)
    sheet.line([(318, _BOTTOM + 12), (318, _BOTTOM + 40)], arrow=True)
    sheet.box(296, _BOTTOM + 40, 44, max(10.0, thick / 2), _SMALL, hatched=True)
    sheet.words(288, _BOTTOM + 52, f"{up:,} small answers, paid for", anchor="end", size=SMALL, room=288)
    sheet.words(288, _BOTTOM + 69, "and thrown away", anchor="end", size=SMALL)
    return top + tall + 8


def _model(sheet: Sheet, x: float, y: float, width: float, height: float, colour: str, name: str, calls: str) -> None:
    sheet.box(x, y, width, height, colour, thick=True)
    sheet.words(x + width / 2, y + height / 2 - 3, name, bold=True, room=width)
    sheet.words(x + width / 2, y + height / 2 + 14, calls, size=SMALL, room=width)
