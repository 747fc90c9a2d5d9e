"""One answer on a time line: shown as a whole, and streamed, with its first useful piece."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

_LEFT, _RIGHT = 146.0, WIDTH - 24.0
_ROWS = {"the engine sends": 76.0, "shown as a whole": 124.0, "streamed": 172.0}
_TALL, _FLOOR = 34.0, 214.0


def stream_timeline(arrivals: Sequence[float], useful: float) -> Picture:
    """What a reader has of an answer, by seconds since the request was sent: when it is shown as a whole, and streamed.

    `arrivals` are the seconds at which each piece came, as `labkit.streaming.token_arrivals` gives them. `useful` is the
    second from which the reader can act: that of one of these pieces (`labkit.streaming.first_useful_at`). Raises
    `InvalidValue` for no pieces, for times that go back or start below 0, and for a `useful` before the first or after the
    last.
    """
    if not arrivals or arrivals[0] < 0 or arrivals[-1] <= 0 or any(b < a for a, b in pairwise(arrivals)):
        raise InvalidValue(f"arrivals are {list(arrivals)!r:.80}; give the seconds of one piece or more, from 0, in order")
    first, last = arrivals[0], arrivals[-1]
    if not first <= useful <= last:
        raise InvalidValue(f"useful is {useful}; pieces came from {first} s to {last} s, and one of them made it useful")
    sheet = Sheet()
    _moments(sheet, {"first piece": first, "first useful piece": useful, "last piece": last})
    for name, top in _ROWS.items():
        sheet.words(0, top + 21, name, anchor="start", bold=True, room=_LEFT - 4)
    with sheet.sweep(_LEFT, 70, _RIGHT - _LEFT, 140, min(8.0, max(3.0, last)), 240):
        _rows(sheet, arrivals, useful)
    _seconds(sheet, last)
    return sheet.picture(
        242,
        title="An answer shown as a whole, and streamed",
        alt=f"{len(arrivals)} pieces of an answer. Shown as a whole: nothing for {_time(last, last)}, then everything. "
        f"Streamed, the first piece is there after {_time(first, last)}, the first useful one after {_time(useful, last)}, "
        f"the last after {_time(last, last)}.",
        caption="Hatched: nothing to read. "
        + (
            f"Streaming ends no earlier, but the reader can act after {_time(useful, last)} (square) in place of "
            f"{_time(last, last)}."
            if useful < last
            else f"This answer is of use only when it is whole, after {_time(last, last)} (square): "
            "streaming just shows it grow."
        ),
    )


def _time(second: float, last: float) -> str:
    """A time as text: in milliseconds where the whole answer takes less than a second."""
    return f"{1000 * second:.1f} ms" if last < 1 else f"{second:.2f} s"


def _at(second: float, last: float) -> float:
    """Where a second is, on a line that ends a little after the `last` piece."""
    return _LEFT + (_RIGHT - _LEFT) * second / (1.06 * last)


def _moments(sheet: Sheet, moments: Mapping[str, float]) -> None:
    last = max(moments.values())
    for level, (words, second) in enumerate(moments.items()):
        x, y = _at(second, last), 16 + 18 * level
        label = f"{words}: {_time(second, last)}"
        inside = x + 6 + width_of(label, SMALL) <= WIDTH
        sheet.words(x + (6 if inside else -6), y, label, anchor="start" if inside else "end", size=SMALL)
        sheet.line([(x, y - 9), (x, _FLOOR)], dashed=True)


def _rows(sheet: Sheet, arrivals: Sequence[float], useful: float) -> None:
    sends, whole, streamed = _ROWS.values()
    xs = [_at(second, arrivals[-1]) for second in arrivals]
    for x in xs:
        sheet.line([(x, sends + 4), (x, sends + _TALL - 4)], PALETTE["orange"], thick=True)
    sheet.hatch(_LEFT, whole, xs[-1] - _LEFT, _TALL)
    sheet.box(xs[-1], whole, _RIGHT - xs[-1], _TALL, PALETTE["blue"], corner=0)
    sheet.hatch(_LEFT, streamed, xs[0] - _LEFT, _TALL)
    bottom = streamed + _TALL
    heights = [bottom - _TALL * count / len(xs) for count in range(len(xs) + 1)]
    stairs = [point for i, x in enumerate(xs) for point in ((x, heights[i]), (x, heights[i + 1]))]
    sheet.area([*stairs, (_RIGHT, streamed), (_RIGHT, bottom)], PALETTE["blue"])
    sheet.dot(_at(useful, arrivals[-1]), heights[bisect_right(arrivals, useful)], PALETTE["red"], square=True, radius=5)


def _seconds(sheet: Sheet, last: float) -> None:
    sheet.line([(_LEFT, _FLOOR), (_RIGHT, _FLOOR)])
    every = 10.0 ** math.floor(math.log10(last / 2))
    every *= 5 if last / every > 12 else 2 if last / every > 6 else 1
    for tick in range(math.floor(1.06 * last / every) + 1):
        x = _at(tick * every, last)
        sheet.line([(x, _FLOOR), (x, _FLOOR + 4)])
        sheet.words(x, _FLOOR + 18, f"{tick * every * (1000 if last < 1 else 1):.6g}", size=SMALL)
    sheet.words(0, _FLOOR + 18, "milliseconds" if last < 1 else "seconds", anchor="start", size=SMALL)
