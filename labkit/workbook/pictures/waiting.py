"""One answer on a time line: shown as a whole, and streamed, with its first useful piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

_LEFT, _RIGHT = 146.0, WIDTH - 24.0
_ROWS = {"the engine sends": 76.0, "shown as a whole": 124.0, "streamed": 172.0}
_TALL = 34.0


def stream_timeline(arrivals: Sequence[float], useful: int) -> Picture:
    """What a reader has of an answer, by seconds since the request was sent: when it is shown as a whole, and streamed.

    `arrivals` are the seconds at which each piece came, as `labkit.streaming.token_arrivals` gives them. With the piece of
    index `useful` the reader can act. Raises `InvalidValue` for no pieces, for times that go back or start below 0, and for
    an index that is none.
    """
    if not arrivals or arrivals[0] < 0 or arrivals[-1] <= 0 or any(b < a for a, b in pairwise(arrivals)):
        raise InvalidValue(f"arrivals are {list(arrivals)!r:.80}; give the seconds of one piece or more, from 0, in order")
    if not 0 <= useful < len(arrivals):
        raise InvalidValue(f"useful is {useful}; it is the index of one of the {len(arrivals)} pieces")
    first, acts, last = arrivals[0], arrivals[useful], arrivals[-1]
    end = 1.06 * last

    def x(second: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * second / end

    sheet = Sheet()
    moments = [(first, "first piece"), (acts, "first useful piece"), (last, "last piece")]
    for level, (second, words) in enumerate(moments):
        y = 16 + 18 * level
        label = f"{words}: {second:.2f} s"
        inside = x(second) + 6 + width_of(label, SMALL) <= WIDTH
        sheet.words(x(second) + (6 if inside else -6), y, label, anchor="start" if inside else "end", size=SMALL)
        sheet.line([(x(second), y - 9), (x(second), 214)], dashed=True)
    for name, y in _ROWS.items():
        sheet.words(0, y + 21, name, anchor="start", bold=True, room=_LEFT - 4)
    with sheet.sweep(_LEFT, 70, _RIGHT - _LEFT, 140, min(8.0, max(3.0, last)), 240):
        for second in arrivals:
            sheet.line(
                [(x(second), _ROWS["the engine sends"] + 4), (x(second), _ROWS["the engine sends"] + _TALL - 4)],
                PALETTE["orange"],
                thick=True,
            )
        whole, streamed = _ROWS["shown as a whole"], _ROWS["streamed"]
        sheet.hatch(_LEFT, whole, x(last) - _LEFT, _TALL)
        sheet.box(x(last), whole, _RIGHT - x(last), _TALL, PALETTE["blue"], corner=0)
        sheet.hatch(_LEFT, streamed, x(first) - _LEFT, _TALL)
        sheet.area(_growing(arrivals, x, streamed), PALETTE["blue"])
        sheet.dot(x(acts), streamed + _TALL - _TALL * (useful + 1) / len(arrivals), PALETTE["red"], square=True, radius=5)
    sheet.line([(_LEFT, 214), (_RIGHT, 214)])
    every = 10.0 ** math.floor(math.log10(end / 2))
    every *= 5 if end / every > 12 else 2 if end / every > 6 else 1
    for tick in range(math.floor(end / every) + 1):
        sheet.line([(x(tick * every), 214), (x(tick * every), 218)])
        sheet.words(x(tick * every), 232, f"{tick * every:.6g}", size=SMALL)
    sheet.words(0, 232, "seconds", anchor="start", size=SMALL)
    return sheet.picture(
        242,
        title="An answer shown as a whole, and streamed",
        alt=f"{len(arrivals)} pieces of an answer. Shown as a whole: nothing for {last:.2f} s, then everything. "
        f"Streamed, the first piece is there after {first:.2f} s, the first useful one after {acts:.2f} s, the last after "
        f"{last:.2f} s.",
        caption=f"Hatched: nothing to read. Streaming ends no earlier, but the reader can act after {acts:.2f} s (square) "
        f"in place of {last:.2f} s.",
    )


def _growing(arrivals: Sequence[float], x: Callable[[float], float], top: float) -> list[tuple[float, float]]:
    """The outline of how much of the answer is there, in steps, closed along the bottom."""
    bottom = top + _TALL
    points = [(x(arrivals[0]), bottom)]
    for count, second in enumerate(arrivals, 1):
        points += [(x(second), points[-1][1]), (x(second), bottom - _TALL * count / len(arrivals))]
    return [*points, (_RIGHT, top), (_RIGHT, bottom)]
