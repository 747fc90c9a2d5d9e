"""One question's answers in several forms, token by token, under a cap: what the cap leaves of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

_LEFT, _WIDE, _ROW, _TALL = 158.0, 390.0, 40.0, 26.0
_TOP = 34.0


@dataclass(frozen=True, slots=True)
class FormOfAnswer:
    """An answer in one form: its `thoughts`, `until` the right answer is there, and all of its `tokens`.

    All three count from the answer's first token. Where the answer is wrong, `until` is None. Raises `InvalidValue` for
    counts that go back.
    """

    name: str
    thoughts: int
    until: int | None
    tokens: int

    def __post_init__(self) -> None:
        known = [0, self.thoughts, *([] if self.until is None else [self.until]), self.tokens]
        if known != sorted(known) or not self.tokens:
            raise InvalidValue(
                f"{self.name!r}: {self.thoughts}, {self.until} and {self.tokens} tokens; they must not go back"
            )

    def left(self, cap: int) -> str:
        """What a cap leaves of the answer, in words."""
        if self.until is None:
            return "wrong anyway"
        if self.tokens <= cap:
            return "whole"
        return "cut behind its answer" if self.until <= cap else "its answer is cut away"


def answer_ribbons(forms: Sequence[FormOfAnswer], cap: int) -> Picture:
    """The answers as ribbons of tokens, with a `cap` drawn through them.

    Raises `InvalidValue` for none or more than eight forms, and for a cap below 1.
    """
    if not 1 <= len(forms) <= 8 or cap < 1:
        raise InvalidValue(f"{len(forms)} forms and a cap of {cap}; a picture shows one to eight forms, a cap is at least 1")
    sheet = Sheet()
    scale = _WIDE / max(cap, *(form.tokens for form in forms))
    for row, form in enumerate(forms):
        y = _TOP + _ROW * row
        sheet.words(2, y + 17, form.name, anchor="start", bold=True, room=_LEFT - 8)  # a J hangs over to the left
        there = form.tokens if form.until is None else form.until
        parts = ((0, form.thoughts, "grey"), (form.thoughts, there, "orange"), (there, form.tokens, "blue"))
        for begin, end, colour in parts:
            if end > begin:
                sheet.box(_LEFT + scale * begin, y, scale * (end - begin), _TALL, PALETTE[colour], corner=0, tint=0.35)
        if form.tokens > cap:
            sheet.hatch(_LEFT + scale * cap, y, scale * (form.tokens - cap), _TALL)
        if form.until is not None:
            sheet.dot(_LEFT + scale * form.until, y + _TALL / 2, PALETTE["green"], radius=5)
        x = _LEFT + scale * max(form.tokens, cap) + 12
        sheet.words(x, y + 17, form.left(cap), anchor="start", size=SMALL, room=WIDTH - x)
    bottom = _TOP + _ROW * len(forms)
    at = _LEFT + scale * cap
    sheet.line([(at, 24), (at, bottom - 6)], dashed=True, thick=True)
    label = f"cap: {cap} tokens"
    wide = width_of(label, SMALL)
    sheet.words(min(max(at, wide / 2), WIDTH - wide / 2), 16, label, size=SMALL)
    _legend(sheet, bottom + 4)
    right = [form.until for form in forms if form.until is not None]
    kept = [until for until in right if until <= cap]
    return sheet.picture(
        bottom + 28,
        title="One question in several forms, under a cap",
        alt=f"A cap of {cap} tokens. "
        + " ".join(
            f"{form.name}: {form.thoughts} tokens of thought, "
            + (f"the right answer after {form.until}, " if form.until is not None else "no right answer, ")
            + f"{form.tokens} in all; {form.left(cap)}."
            for form in forms
        ),
        caption=f"Of {len(forms)} forms, {len(right)} give the right answer (dot). Under a cap of {cap} tokens it is still "
        f"there in {len(kept)} of them; hatched is what the cap cuts away.",
    )


def _legend(sheet: Sheet, y: float) -> None:
    x = _LEFT
    for words, colour in (("thoughts", "grey"), ("until the answer is there", "orange"), ("what follows", "blue")):
        sheet.box(x, y, 20, 16, PALETTE[colour], corner=0, tint=0.35)
        sheet.words(x + 26, y + 13, words, anchor="start", size=SMALL)
        x += 44 + width_of(words, SMALL)
