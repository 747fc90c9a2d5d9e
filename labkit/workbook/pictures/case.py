"""One support case: the calls behind one answer, with those whose answer was thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.request import InvalidValue, Usage
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

FATES = {"used": "", "retried": "failed, tried again", "shadow": "shadow, nobody reads it"}
"""What became of a call's answer, and how the picture says so."""
_LEFT, _WIDE, _ROW = 128.0, 320.0, 46.0


@dataclass(frozen=True, slots=True)
class CaseCall:
    """One call of a case: its `step`, its `model`, the tokens it used, and what became of its answer (a key of `FATES`)."""

    step: str
    model: str
    usage: Usage
    fate: str = "used"

    def __post_init__(self) -> None:
        if self.fate not in FATES:
            raise InvalidValue(f"fate is {self.fate!r}; use one of {', '.join(FATES)}")

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.usage.input_tokens + self.usage.output_tokens


def case_calls(calls: Sequence[CaseCall]) -> Picture:
    """The calls of one case in their order, as bars of the tokens they read and wrote.

    Raises `InvalidValue` for calls without a token, and for none or more than ten of them.
    """
    if not 1 <= len(calls) <= 10 or not all(call.tokens for call in calls):
        raise InvalidValue(f"{len(calls)} calls; a picture shows one to ten, each with a token or more")
    sheet = Sheet()
    scale = _WIDE / max(call.tokens for call in calls)
    _end(sheet, 2, "one question")
    for row, call in enumerate(calls):
        y = 48 + _ROW * row
        sheet.words(0, y + 11, call.step, anchor="start", bold=True, room=_LEFT - 10)
        sheet.words(0, y + 27, call.model, anchor="start", size=SMALL, room=_LEFT - 10)
        thrown = call.fate != "used"
        read, wrote = scale * call.usage.input_tokens, scale * call.usage.output_tokens
        if read:
            sheet.box(_LEFT, y, read, 28, PALETTE["blue"], corner=2, hatched=thrown)
        if wrote:
            sheet.box(_LEFT + read, y, wrote, 28, PALETTE["orange"], corner=2, hatched=thrown, tint=0.45)
        x = _LEFT + read + wrote + 10
        counts = f"{call.usage.input_tokens:,} read, {call.usage.output_tokens:,} written"
        sheet.words(x, y + (11 if thrown else 19), counts, anchor="start", size=SMALL, room=WIDTH - x)
        if thrown:
            sheet.words(x, y + 26, FATES[call.fate], anchor="start", size=SMALL, bold=True)
    bottom = 48 + _ROW * len(calls)
    _end(sheet, bottom, "one answer")
    x = _LEFT + 150
    for words, colour, hatched in (("read", "blue", False), ("written", "orange", False), ("thrown away", "grey", True)):
        sheet.box(
            x, bottom + 6, 20, 16, PALETTE[colour], corner=2, hatched=hatched, tint=0.45 if colour == "orange" else 0.2
        )
        sheet.words(x + 28, bottom + 19, words, anchor="start", size=SMALL)
        x += 48 + width_of(words, SMALL)
    lost = [call for call in calls if call.fate != "used"]
    share = sum(call.tokens for call in lost) / sum(call.tokens for call in calls)
    return sheet.picture(
        bottom + 34,
        title="The calls behind one answer",
        alt=f"One question, {len(calls)} calls, one answer. "
        + " ".join(
            f"{call.step} by {call.model}: {call.usage.input_tokens:,} tokens read, {call.usage.output_tokens:,} written"
            + (f" ({FATES[call.fate]})." if FATES[call.fate] else ".")
            for call in calls
        ),
        caption=f"One question takes {len(calls)} calls. The answers of {len(lost)} of them are thrown away, "
        f"with {share:.0%} of the tokens; all are paid for.",
    )


def _end(sheet: Sheet, y: float, words: str) -> None:
    sheet.box(_LEFT, y, 120, 28, thick=True, corner=14)
    sheet.words(_LEFT + 60, y + 18.5, words)
