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

    def rate(tokens: float) -> float:
        return tokens / max(model.linear_s * tokens, model.weights_seconds(tokens))

    corner = break_even_tokens(model)
    last = 4 ** math.ceil(math.log(2 * max(prefill, corner, *decode), 4))
    low, high = 10 ** math.floor(math.log10(rate(1))), 10 ** math.ceil(math.log10(1.5 / model.linear_s))

    def at(tokens: float) -> tuple[float, float]:
        across = math.log(tokens) / math.log(last)
        up = math.log(rate(tokens) / low) / math.log(high / low)
        return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

    sheet = Sheet()
    edge = at(corner)[0]
    sheet.area([(_LEFT, _TOP), (edge, _TOP), (edge, _BOTTOM), (_LEFT, _BOTTOM)], PALETTE["sky"])
    sheet.area([(edge, _TOP), (_RIGHT, _TOP), (_RIGHT, _BOTTOM), (edge, _BOTTOM)], PALETTE["orange"])
    for left, right, head, why in (
        (_LEFT, edge, "memory-bound", "each step reads all weights"),
        (edge, _RIGHT, "compute-bound", "each token costs"),
    ):
        if right - left >= width_of(why, SMALL):
            sheet.words((left + right) / 2, _TOP + 22, head, bold=True, room=right - left)
            sheet.words((left + right) / 2, _TOP + 39, why, size=SMALL)
    _axes(sheet, last, low, high)
    sheet.line([at(last ** (i / 200)) for i in range(201)], thick=True)
    sheet.line([(edge, _TOP), (edge, _BOTTOM)], dashed=True)
    points = [(n, f"decode, {n} at once" if n > 1 else "decode, 1 sequence", False) for n in sorted(set(decode))]
    for tokens, words, square in [*points, (prefill, f"prefill of {prefill:,} tokens", True)]:
        x, y = at(tokens)
        sheet.dot(x, y, PALETTE["red"] if square else PALETTE["blue"], square=square)
        wide = width_of(words, SMALL)
        if square:
            sheet.words(min(max(x, _LEFT + wide / 2), _RIGHT - wide / 2), y + 24, words, size=SMALL)
        else:
            sheet.words(x + 11, y + 15, words, anchor="start", size=SMALL)
    of = f" of {name}" if name else ""
    told = "; ".join(f"{words}: {rate(tokens) * model.linear_s:.1%} of the roof" for tokens, words, _ in points)
    share = rate(prefill) * model.linear_s
    return sheet.picture(
        _BOTTOM + 46,
        title="Prefill and decode on the roofline",
        alt=f"Tokens per second against tokens in a step{of}, both on logarithmic axes: up to {corner:,.0f} tokens "
        f"it rises (memory is the limit), then it is flat (arithmetic is). {told}; "
        f"prefill of {prefill:,} tokens: {share:.0%} of it.",
        caption=f"Up to {corner:,.0f} tokens in a step{of}, memory is the limit, and more tokens ride along almost for "
        f"free; beyond, each token costs. {told[0].upper()}{told[1:]}.",
    )


def _axes(sheet: Sheet, last: int, low: float, high: float) -> None:
    sheet.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)])
    for power in range(round(math.log(last, 4)) + 1):
        x = _LEFT + power / math.log(last, 4) * (_RIGHT - _LEFT)
        sheet.line([(x, _BOTTOM), (x, _BOTTOM + 4)])
        label = f"{4**power:,}"
        sheet.words(min(x, WIDTH - width_of(label, SMALL) / 2), _BOTTOM + 18, label, size=SMALL)
    decades = round(math.log10(high / low))
    for decade in range(decades + 1):
        y = _BOTTOM - decade / decades * (_BOTTOM - _TOP)
        sheet.line([(_LEFT - 4, y), (_LEFT, y)])
        sheet.words(_LEFT - 8, y + 4.5, _short(low * 10**decade), anchor="end", size=SMALL)
    sheet.words(0, 18, "tokens per second", anchor="start", size=SMALL)
    sheet.words((_LEFT + _RIGHT) / 2, _BOTTOM + 40, "tokens in one step", size=SMALL)


def _short(value: float) -> str:
    """A power of ten in few letters."""
    unit, letter = next(((u, s) for u, s in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= u), (1.0, ""))
    return f"{value / unit:.6g}{letter}"
