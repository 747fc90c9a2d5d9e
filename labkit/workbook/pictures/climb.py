"""A cascade: how many requests the small model ends, and how many go up."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, Sheet

_FULL = 110.0  # px for all requests


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
    down = of - up
    thick_up = _FULL * share_up
    top, blue, orange = 46.0, PALETTE["blue"], PALETTE["orange"]
    split, bottom = top + _FULL - thick_up, top + _FULL
    tall = max(thick_up, 56.0) + 12
    middle = 184.0 + tall / 2
    sheet = Sheet()
    sheet.area([(76, top), (134, top), (134, bottom), (76, bottom)], blue)
    sheet.area([(240, top), (296, top), (296, bottom), (240, bottom)], blue)
    if down:
        sheet.area([(440, top), (594, top), (594, split), (440, split)], blue)
        sheet.words(517, (top + split) / 2 + 4.5, f"{down} pass")
    if up:
        low = middle - thick_up / 2
        sheet.area([(440, split), (490, low), (490, low + thick_up), (440, bottom)], orange)
        sheet.line([(582, middle), (650, middle), (650, top + _FULL / 2 + 24)], orange, arrow=True, thick=True)
    sheet.words(0, top + _FULL / 2 - 4, f"{of:,}", anchor="start", bold=True, room=72)
    sheet.words(0, top + _FULL / 2 + 13, "requests", anchor="start", room=72)
    _model(sheet, 134, top - 12, 106, _FULL + 24, blue, "small model", f"{of:,} calls")
    sheet.box(296, top - 12, 144, _FULL + 24, dashed=True)
    sheet.words(368, top + 10, "checks", bold=True)
    for row, check in enumerate(checks):
        sheet.words(368, top + 34 + 21 * row, check, size=SMALL, room=140)
    if up:
        _model(sheet, 490, 184, 92, tall, orange, "large", f"{up:,} calls")
        sheet.line([(318, bottom + 12), (318, bottom + 40)], arrow=True)
        sheet.box(296, bottom + 40, 44, max(10.0, thick_up / 2), blue, hatched=True)
        sheet.words(288, bottom + 52, f"{up:,} small answers, paid for", anchor="end", size=SMALL, room=288)
        sheet.words(288, bottom + 69, "and thrown away", anchor="end", size=SMALL)
        sheet.words(492, 166, f"{up:,} fail", anchor="start", room=150)
    sheet.words(602, top + _FULL / 2 - 4, "delivered", anchor="start", bold=True)
    sheet.words(602, top + _FULL / 2 + 13, f"{of:,} answers", anchor="start")
    calls = of + up
    end = 184 + tall + 8 if up else bottom + 20
    return sheet.picture(
        end,
        title="A cascade",
        alt=f"Of {of:,} requests, all are first answered by the small model. {down:,} of its answers pass the checks "
        f"({', '.join(checks)}) and are delivered. {up:,} do not, are thrown away, and the large model answers instead.",
        caption=f"{of:,} answers take {calls:,} calls: all requests go to the small model, and {up:,} of them also to the "
        "large one. Who goes up waits for both.",
    )


def _model(sheet: Sheet, x: float, y: float, width: float, height: float, colour: str, name: str, calls: str) -> None:
    sheet.box(x, y, width, height, colour, thick=True)
    sheet.words(x + width / 2, y + height / 2 - 3, name, bold=True, room=width)
    sheet.words(x + width / 2, y + height / 2 + 14, calls, size=SMALL, room=width)
