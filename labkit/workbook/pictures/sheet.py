"""The paper that the pictures are drawn on: boxes, lines and words as SVG, in the workbook's colours.

Words and lines are in `currentColor`, the colour of the text around the picture, so they follow the reader's theme. A box is
a tint of its colour under an edge of that colour: words on it are as legible as on the page, in both themes. What a colour
means, an edge, a hatching or a word says as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from html import escape

from labkit.request import InvalidValue
from labkit.workbook.charts import PALETTE
from labkit.workbook.pictures.picture import Picture

WIDTH = 720
"""Width of every picture, in units of one CSS pixel at its full size."""
SMALL, PLAIN, LARGE = 12, 13, 15
"""Sizes of words, px at full size."""
ROTATION = tuple(PALETTE[name] for name in ("blue", "orange", "green", "pink", "sky"))
"""Colours for things of one kind that have a name beside them."""
TINT = 0.2
_MARK = "lkp0-"  # in the names of a picture's parts, until the picture is whole and has a name of its own
_NARROW, _BROAD = frozenset("iljtfr.,:;'|!()[] /·-"), frozenset("mwMW@%—…×→")


def width_of(words: str, size: float = PLAIN, bold: bool = False) -> float:
    """About how wide the words are, in px: rather too wide, since the reader's font is not known."""
    ems = sum(0.4 if c in _NARROW else 0.98 if c in _BROAD else 0.7 if c.isupper() or c.isdigit() else 0.62 for c in words)
    return ems * size * (1.1 if bold else 1.0)


def n(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Sheet:
    """A drawing in the making, `WIDTH` wide; the origin is its upper left corner, and units are px at full size."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._moves = False

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str | None = None,
        *,
        tint: float = TINT,
        hatched: bool = False,
        dashed: bool = False,
        thick: bool = False,
        corner: float = 4,
    ) -> None:
        """A rectangle. Without a colour it is an edge in the page's ink; `hatched` marks what is empty or thrown away."""
        place = f'x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" rx="{n(corner)}"'
        edge = f'stroke="{colour or "currentColor"}" stroke-width="{2.5 if thick else 1.2}"'
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        fill = f'fill="{colour}" fill-opacity="{tint}"' if colour else 'fill="none"'
        self._parts.append(f"<rect {place} {fill} {edge}{dashes}/>")
        if hatched:
            self._parts.append(f'<rect {place} fill="url(#{_MARK}hatch)"/>')

    def hatch(self, x: float, y: float, width: float, height: float) -> None:
        """Hatching without an edge."""
        self._parts.append(
            f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" fill="url(#{_MARK}hatch)"/>'
        )

    def words(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "middle",
        size: float = PLAIN,
        bold: bool = False,
        room: float | None = None,
    ) -> None:
        """Words on the line at `y`, from, around or up to `x` (`anchor` "start", "middle", "end").

        Raises `InvalidValue` for words that are wider than `room`, or that leave the sheet.
        """
        wide = width_of(words, size, bold)
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        if room is not None and wide > room:
            raise InvalidValue(f"{words!r} is about {wide:.0f} px wide and has room for {room:.0f}; say it in fewer letters")
        if left < 0 or left + wide > WIDTH:
            raise InvalidValue(f"{words!r} would leave the picture; say it in fewer letters")
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{n(x)}" y="{n(y)}" text-anchor="{anchor}" font-size="{n(size)}"{weight}>{escape(words)}</text>'
        )

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str | None = None,
        *,
        arrow: bool = False,
        dashed: bool = False,
        faint: bool = False,
        thick: bool = False,
    ) -> None:
        """A line through points, with an arrow's head at its end."""
        stroke = f'stroke="{colour or "currentColor"}" stroke-width="{2.2 if thick else 1.3}" fill="none"'
        look = (' stroke-dasharray="5 4"' if dashed else "") + (' opacity="0.3"' if faint else "")
        end = points[-1]
        if arrow:
            angle = math.atan2(end[1] - points[-2][1], end[0] - points[-2][0])
            stem = (end[0] - 7 * math.cos(angle), end[1] - 7 * math.sin(angle))
            sides = [(end[0] - 10 * math.cos(angle + a), end[1] - 10 * math.sin(angle + a)) for a in (0.42, -0.42)]
            self._parts.append(f'<path d="{_path((end, *sides))}Z" fill="{colour or "currentColor"}"/>')
            points = (*points[:-1], stem)
        self._parts.append(f'<path d="{_path(points)}" {stroke}{look}/>')

    def area(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """A tinted area inside of points, under an edge."""
        self._parts.append(f'<path d="{_path(points)}Z" fill="{colour}" fill-opacity="{TINT}" stroke="{colour}"/>')

    def dot(self, x: float, y: float, colour: str, *, square: bool = False, radius: float = 6) -> None:
        """A mark in full colour: a circle, or a square."""
        if square:
            size = n(2 * radius)
            place = f'x="{n(x - radius)}" y="{n(y - radius)}" width="{size}" height="{size}"'
            self._parts.append(f'<rect {place} fill="{colour}"/>')
        else:
            self._parts.append(f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(radius)}" fill="{colour}"/>')

    @contextmanager
    def sweep(self, x: float, y: float, width: float, height: float, seconds: float, jumps: int) -> Iterator[None]:
        """What is drawn inside appears from left to right when the reader presses Play: `jumps` equal jumps in `seconds`.

        The rectangle is where the things inside lie.
        """
        self._moves = True
        timing = f"--lkp-s:{n(seconds / 0.85)}s;--lkp-w:{n(width)}px;animation-timing-function:steps({jumps})"
        frame = f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" fill="none"/>'
        self._parts.append(f'<g class="lkp-sweep" style="{timing}">{frame}')
        yield
        self._parts.append("</g>")
        hand = f'd="M{n(x)},{n(y - 4)}V{n(y + height + 4)}" stroke="currentColor" stroke-width="2" fill="none"'
        self._parts.append(f'<path class="lkp-hand" style="{timing}" {hand}/>')

    def picture(self, height: float, *, title: str, alt: str, caption: str) -> Picture:
        """The finished picture. Its parts get names that no other picture on a page has."""
        hatch = (
            f'<pattern id="{_MARK}hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            '<path d="M0,0V7" stroke="currentColor" stroke-width="1.6" stroke-opacity="0.45"/></pattern>'
        )
        body = "".join(self._parts)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {n(height)}" role="img" '
            f'aria-labelledby="{_MARK}title {_MARK}words"><title id="{_MARK}title">{escape(title)}</title>'
            f'<desc id="{_MARK}words">{escape(alt)}</desc><defs>{hatch}</defs>{body}</svg>'
        )
        own = blake2b(svg.encode(), digest_size=5).hexdigest()
        return Picture(svg.replace(_MARK, f"lkp-{own}-"), alt, caption, self._moves)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{n(x)},{n(y)}" for x, y in points)
