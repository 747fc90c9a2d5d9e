"""A finished drawing, and how a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

from labkit.request import InvalidValue
from labkit.workbook.render import show_html


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing as `svg`, its text alternative, and the sentence under it.

    `alt` is what a reader who cannot see it should learn from it. `moves`: whether it has an animation; until
    the reader presses Play, that stands still with everything drawn.
    """

    svg: str
    alt: str
    caption: str
    moves: bool = False

    def __post_init__(self) -> None:
        for name in ("alt", "caption"):
            if not getattr(self, name).strip():
                raise InvalidValue(f"a picture needs its {name}: it is empty")

    @property
    def html(self) -> str:
        """The picture with its style, its button if it moves, its caption and, folded, its text alternative.

        There is no script in it, so it also works in a saved notebook that is read without a kernel.
        """
        play = (
            '<label class="lkp-play"><input type="checkbox" aria-label="Play the animation"></label>' if self.moves else ""
        )
        return (
            f'<div class="lkp"><style>{_style()}</style>{play}{self.svg}<div class="lkp-under">{escape(self.caption)}'
            f"<details><summary>Picture in words</summary>{escape(self.alt)}</details></div></div>"
        )

    @property
    def text(self) -> str:
        """The picture in words."""
        return f"{self.alt}\n{self.caption}"


def draw_picture(picture: Picture) -> None:
    """Display a picture; where no HTML is shown, its words."""
    show_html(picture.html, picture.text)


@lru_cache(maxsize=1)
def _style() -> str:
    return Path(__file__).with_name("pictures.css").read_text(encoding="utf-8")
