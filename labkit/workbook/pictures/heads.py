"""Attention heads: which query heads read which keys and values, and what that leaves to store."""

from __future__ import annotations

from labkit.request import InvalidValue
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import ROTATION, SMALL, WIDTH, Sheet

_MOST = 32
_LEFT = 136


def kv_heads(query_heads: int = 8, kv_heads: int = 2) -> Picture:
    """The query heads of one layer, in groups that share a KV head, and what the cache keeps of a token in that layer.

    Raises `InvalidValue` for more than 32 heads, and for query heads that the KV heads do not divide.
    """
    if not 1 <= kv_heads <= query_heads <= _MOST or query_heads % kv_heads:
        raise InvalidValue(
            f"{query_heads} query heads and {kv_heads} KV heads; use up to {_MOST} query heads, in groups of equal size"
        )
    group = query_heads // kv_heads
    sheet = Sheet()
    slot = (WIDTH - _LEFT - 8) / query_heads
    side = min(30.0, slot - 4)

    def middle(head: int) -> float:
        return _LEFT + slot * (head + 0.5)

    sheet.words(0, 37, "query heads", anchor="start", bold=True)
    sheet.words(0, 122, "KV heads", anchor="start", bold=True)
    for kv in range(kv_heads):
        colour = ROTATION[kv % len(ROTATION)]
        centre = (middle(kv * group) + middle(kv * group + group - 1)) / 2
        for head in range(kv * group, kv * group + group):
            sheet.line([(middle(head), 18 + side), (centre, 102)], colour)
            sheet.box(middle(head) - side / 2, 18, side, side, colour, corner=side / 2)
            if slot >= 26:
                sheet.words(middle(head), 18 + side / 2 + 4.5, str(head + 1), size=SMALL)
        _pair(sheet, centre, 102, min(34.0, (slot * group - 4) / 2), 30, colour, labelled=slot * group >= 44)
    sheet.words(0, 172, "What the cache keeps of one token in this layer", anchor="start", bold=True)
    for row, (count, name) in enumerate(((query_heads, "a KV head each"), (kv_heads, "as drawn above"))):
        y = 186 + 40 * row
        sheet.words(0, y + 18, name, anchor="start", room=_LEFT - 8)
        for head in range(query_heads):
            if head < count:
                colour = ROTATION[(head // group if row == 0 else head) % len(ROTATION)]
                _pair(sheet, middle(head), y, (slot - 4) / 2, 26, colour, labelled=slot >= 44)
            else:
                sheet.box(middle(head) - (slot - 4) / 2, y, slot - 4, 26, dashed=True)
    kind = "multi-head attention" if group == 1 else "multi-query attention" if kv_heads == 1 else "grouped-query attention"
    share = f"1/{group}" if group > 1 else "all"
    told = f"{query_heads} query heads, {kv_heads} KV head{'s' if kv_heads > 1 else ''}: {kind}"
    return sheet.picture(
        260,
        title=told,
        alt=f"{told}. Every {group} query heads in a row read one KV head's key (K) and value (V)."
        f" Of each token the cache keeps {kv_heads} pairs of K and V in each layer; with a KV head for each query head"
        f" it would keep {query_heads}.",
        caption=f"{told}. The cache keeps {kv_heads} of {query_heads} pairs: {share} of the memory.",
    )


def _pair(sheet: Sheet, centre: float, y: float, width: float, height: float, colour: str, *, labelled: bool) -> None:
    for x, name in ((centre - width, "K"), (centre, "V")):
        sheet.box(x, y, width, height, colour, corner=2)
        if labelled:
            sheet.words(x + width / 2, y + height / 2 + 4.5, name, size=SMALL)
