"""A semantic cache's partitions: where a question is searched, and where it never is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.caches import Scope
from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet

_LEFT = 110
_LINE, _GAP = 20, 24


@dataclass(frozen=True, slots=True)
class Kept:
    """A question with the scope in which it was asked and the era of the store's clock; in a store, one with its answer."""

    scope: Scope
    question: str
    era: int = 1


def cache_partitions(entries: Sequence[Kept], asked: Kept) -> Picture:
    """The partitions of a store by tenant (columns) and permissions (rows), and the one in which `asked` is searched.

    An entry may be given if its scope and its era are those of `asked` and its question is the same; here, the same to the
    letter. Raises `InvalidValue` for no entries, for more than four tenants, and for questions that do not fit.
    """
    if not entries:
        raise InvalidValue("entries is empty; give the questions that the store holds")
    scopes = [asked.scope, *(entry.scope for entry in entries)]
    tenants = sorted({scope.tenant for scope in scopes})
    permissions = sorted({_permission(scope) for scope in scopes})
    if len(tenants) > 4:
        raise InvalidValue(f"{len(tenants)} tenants; a picture shows up to four")
    sheet = Sheet()
    wide = (WIDTH - _LEFT) / len(tenants)
    home = tenants.index(asked.scope.tenant)
    sheet.words(0, 20, "asked now", anchor="start", bold=True)
    told = f"“{asked.question}” by {asked.scope.tenant}, {_permission(asked.scope)}"
    sheet.box(_LEFT, 2, WIDTH - _LEFT - 2, 28, PALETTE["blue"], thick=True)
    sheet.words((_LEFT + WIDTH) / 2, 20.5, told, room=WIDTH - _LEFT - 20)
    for column, tenant in enumerate(tenants):
        sheet.words(_LEFT + wide * column + (wide - _GAP) / 2, 66, tenant, bold=True, room=wide - 40)
    y = 76.0
    for permission in permissions:
        cells = [[e for e in entries if (e.scope.tenant, _permission(e.scope)) == (t, permission)] for t in tenants]
        tall = 32 + _LINE * max(1, *(len(cell) for cell in cells))
        sheet.words(0, y + tall / 2 + 4, permission, anchor="start", bold=True, room=_LEFT - 6)
        for column, cell in enumerate(cells):
            searched = column == home and permission == _permission(asked.scope)
            _cell(sheet, _LEFT + wide * column, y, wide - _GAP, tall, cell, asked, searched=searched)
            if searched:
                right, middle = _LEFT + wide * (column + 1), y + tall / 2
                lane = right - _GAP / 4
                sheet.line([(lane, 30), (lane, middle), (right - _GAP, middle)], PALETTE["blue"], arrow=True, thick=True)
        y += tall + 10
    elsewhere = sum(entry.question == asked.question and entry.scope != asked.scope for entry in entries)
    given = sum(may_be_given(entry, asked) for entry in entries)
    return sheet.picture(
        y,
        title="A semantic cache's partitions",
        alt=f"Partitions by tenant ({', '.join(tenants)}) and permissions ({', '.join(permissions)}). {told} is searched "
        f"only in its own. Entries with the same words: {given} there that may be given, {elsewhere} in other partitions, "
        "which are not looked at.",
        caption=f"Only the asker's partition is searched. Entries with the same words in other partitions: {elsewhere}; "
        "none of them is even compared. An entry of an older era of the clock is never given.",
    )


def may_be_given(entry: Kept, asked: Kept) -> bool:
    """Whether the entry's answer may be given to `asked`: scope, era and question are the same."""
    return (entry.scope, entry.era, entry.question) == (asked.scope, asked.era, asked.question)


def _permission(scope: Scope) -> str:
    return " + ".join(sorted(scope.permissions)) or "no rights"


def _cell(
    sheet: Sheet, x: float, y: float, wide: float, tall: float, cell: Sequence[Kept], asked: Kept, *, searched: bool
) -> None:
    sheet.box(x, y, wide, tall, PALETTE["blue"] if searched else None, thick=searched, dashed=not searched, tint=0.12)
    label = "searched" if searched else "not searched"
    sheet.words(x + wide - 8, y + 17, label, anchor="end", size=SMALL, bold=searched, room=wide - 30)
    for row, entry in enumerate(cell):
        line = y + 36 + _LINE * row
        hit = searched and may_be_given(entry, asked)
        mark = "✓ " if hit else "✗ " if searched and entry.era != asked.era else "· "
        words = mark + entry.question + ("" if entry.era == asked.era else " (older era)")
        sheet.words(x + 10, line, words, anchor="start", size=SMALL, bold=hit, room=wide - 12)
