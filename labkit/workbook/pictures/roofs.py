"""Two roofs: why reading a prompt fills a machine's arithmetic, and writing an answer its memory bus."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labkit.latency import LatencyModel, break_even_tokens
from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, WIDTH - 16.0, 40.0, 300.0


def roofline(model: LatencyModel, *, decode: Sequence[int] = (1, 16), prefill: int = 2048, name: str = "") -> Picture:
    """Tokens per second against tokens in a step, of the linear layers alone (attention is left out).

    Memory bandwidth makes the slope, arithmetic the roof. `decode` are numbers of sequences that write at once, one token
    each in a step; `prefill` is the length of a prompt that is read in one step; `name` says whose model it is. Raises
    `InvalidValue` for numbers below 1, and for a model without arithmetic or weights, which has no corner.
    """
    if not decode or min(*decode, prefill) < 1:
        raise InvalidValue(f"decode is {list(decode)} and prefill {prefill}; all are numbers of tokens from 1")
    if not model.linear_s or not model.weights_seconds(1):
        raise InvalidValue("a model without linear_s or weights_s has no corner; give both, as datasheet_model does")

    corner = break_even_tokens(model)
    paper = _Paper(model, max(2 * corner, 2 * prefill, *decode))
    sheet = Sheet()
    edge = paper.at(corner)[0]
    _regions(sheet, edge)
    _axes(sheet, paper)
    sheet.line([paper.at(paper.last ** (i / 200)) for i in range(201)], thick=True)
    for count in sorted(set(decode)):
        x, y = paper.at(count)
        sheet.dot(x, y, PALETTE["blue"])
        if x < edge < x + 11 + width_of(_decode(count), SMALL):  # above the slope, where no line crosses it
            sheet.words(x - 11, y - 6, _decode(count), anchor="end", size=SMALL)
        else:
            sheet.words(x + 11, y + 15, _decode(count), anchor="start", size=SMALL)
    x, y = paper.at(prefill)
    words = f"prefill of {prefill:,} tokens"
    half = width_of(words, SMALL) / 2
    sheet.dot(x, y, PALETTE["red"], square=True)
    sheet.words(min(max(x, _LEFT + half), _RIGHT - half), y + 24, words, size=SMALL)
    of = f" of {name}" if name else ""
    shares = "; ".join(f"{_decode(n)}: {paper.rate(n) * model.linear_s:.1%} of the roof" for n in sorted(set(decode)))
    return sheet.picture(
        _BOTTOM + 46,
        title="Prefill and decode on the roofline",
        alt=f"Tokens per second against tokens in a step{of}, both on logarithmic axes: up to {corner:,.0f} tokens "
        f"it rises (memory is the limit), then it is flat (arithmetic is). {shares}; {words}: "
        f"{paper.rate(prefill) * model.linear_s:.1%} of it.",
        caption=f"Up to {corner:,.0f} tokens in a step{of}, memory is the limit, and more tokens ride along almost for "
        f"free; beyond, each token costs. {shares[0].upper()}{shares[1:]}.",
    )


def _decode(sequences: int) -> str:
    return f"decode, {sequences} at once" if sequences > 1 else "decode, 1 sequence"


class _Paper:
    """Logarithmic paper for tokens in a step, 1 to `last`, and tokens per second, `low` to `high`."""

    def __init__(self, model: LatencyModel, most: float) -> None:
        self._model = model
        self.last: int = 4 ** math.ceil(math.log(most, 4))
        self.low = 10.0 ** math.floor(math.log10(self.rate(1)))
        self.high = 10.0 ** math.ceil(math.log10(1.5 / model.linear_s))

    def rate(self, tokens: float) -> float:
        """Tokens per second of the linear layers, in steps of so many tokens."""
        return tokens / max(self._model.linear_s * tokens, self._model.weights_seconds(tokens))

    def at(self, tokens: float) -> tuple[float, float]:
        """Where a step of so many tokens lies."""
        across = math.log(tokens) / math.log(self.last)
        up = math.log(self.rate(tokens) / self.low) / math.log(self.high / self.low)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)


def _regions(sheet: Sheet, edge: float) -> None:
    for left, right, colour, head, why in (
        (_LEFT, edge, "sky", "memory-bound", "each step reads all weights"),
        (edge, _RIGHT, "orange", "compute-bound", "each token costs"),
    ):
        sheet.area([(left, _TOP), (right, _TOP), (right, _BOTTOM), (left, _BOTTOM)], PALETTE[colour])
        if right - left >= width_of(why, SMALL):
            sheet.words((left + right) / 2, _TOP + 22, head, bold=True, room=right - left)
            sheet.words((left + right) / 2, _TOP + 39, why, size=SMALL)
    sheet.line([(edge, _TOP), (edge, _BOTTOM)], dashed=True)


def _axes(sheet: Sheet, paper: _Paper) -> None:
    sheet.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)])
    for power in range(round(math.log(paper.last, 4)) + 1):
        x = _LEFT + power / math.log(paper.last, 4) * (_RIGHT - _LEFT)
        sheet.line([(x, _BOTTOM), (x, _BOTTOM + 4)])
        label = f"{4**power:,}"
        sheet.words(min(x, WIDTH - width_of(label, SMALL) / 2), _BOTTOM + 18, label, size=SMALL)
    decades = round(math.log10(paper.high / paper.low))
    for decade in range(decades + 1):
        y = _BOTTOM - decade / decades * (_BOTTOM - _TOP)
        sheet.line([(_LEFT - 4, y), (_LEFT, y)])
        sheet.words(_LEFT - 8, y + 4.5, _short(paper.low * 10**decade), anchor="end", size=SMALL)
    sheet.words(0, 18, "tokens per second", anchor="start", size=SMALL)
    sheet.words((_LEFT + _RIGHT) / 2, _BOTTOM + 40, "tokens in one step", size=SMALL)


def _short(value: float) -> str:
    """A power of ten in few letters."""
    unit, letter = next(((u, s) for u, s in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= u), (1.0, ""))
    return f"{value / unit:.6g}{letter}"
