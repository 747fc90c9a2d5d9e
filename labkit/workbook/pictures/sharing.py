"""Prompts cut into KV blocks: which blocks they share, by vLLM's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.kvcache import Allocator, Snapshot
from labkit.request import InvalidValue
from labkit.workbook import PALETTE
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import SMALL, WIDTH, Sheet, width_of

_LEFT = 76
_ROW = 66
_MOST = 5


def prefix_blocks(prompts: Mapping[str, Sequence[str]], block: int = 4) -> Picture:
    """Prompts by name, as their tokens (texts), cut into blocks of `block` tokens; the memory that holds them all at once.

    The lab's `Allocator` decides which blocks are shared. Raises `InvalidValue` for no prompts, for more than five blocks in
    one, and for texts that do not fit into their place.
    """
    if not prompts or not all(prompts.values()):
        raise InvalidValue(f"prompts are {dict(prompts)!r:.80}; give at least one, of at least one token each")
    numbers: dict[str, int] = {}
    as_ids = {name: [numbers.setdefault(t, len(numbers)) for t in tokens] for name, tokens in prompts.items()}
    wanted = sum(-(-len(tokens) // block) for tokens in prompts.values()) if block > 0 else 0
    allocator = Allocator(wanted + 1, block)
    for name, ids in as_ids.items():
        allocator.allocate(name, ids)
    state = allocator.snapshot()
    sheet = Sheet()
    most = max(len(table) for _, table in state.tables)
    if most > _MOST:
        raise InvalidValue(
            f"a prompt takes {most} blocks of {block}; a picture shows up to {_MOST} in a row, so use larger blocks"
        )
    wide = min(250.0, (WIDTH - _LEFT) / most)
    for row, (name, table) in enumerate(state.tables):
        y = 26 + _ROW * row
        sheet.words(0, y + 20, name, anchor="start", bold=True, room=_LEFT - 6)
        for index, id in enumerate(table):
            held = prompts[name][index * block : (index + 1) * block]
            _block(sheet, _LEFT + index * wide, y, wide - 10, held, block, id, shared=state.blocks[id - 1].references > 1)
    bottom = _memory(sheet, 26 + _ROW * len(state.tables), state)
    held_once = sum(bool(view.holders) for view in state.blocks)
    shared = len(state.shared)
    return sheet.picture(
        bottom,
        title="Prompts in blocks, and the blocks they share",
        alt=f"Prompts in blocks of {block} tokens. "
        + " ".join(f"{name}: blocks {', '.join(map(str, table))}." for name, table in state.tables)
        + f" Shared: {', '.join(str(view.id) for view in state.shared) or 'none'}.",
        caption=f"{wanted} blocks of prompts take {held_once} in memory: {shared} of these "
        f"{'is' if shared == 1 else 'are'} shared. A block is shared only if it is full and all before it is equal, too.",
    )


def _block(sheet: Sheet, x: float, y: float, wide: float, held: Sequence[str], block: int, id: int, *, shared: bool) -> None:
    sheet.words(x + 1, y - 5, f"block {id}" + (" · shared" if shared else ""), anchor="start", size=SMALL, room=wide)
    cells = _cells(held, block, wide)
    sheet.box(x, y, wide, 32, PALETTE["blue"] if shared else PALETTE["grey"], thick=shared, tint=0.2 if shared else 0.07)
    left = x
    for i, cell in enumerate(cells):
        if i:
            sheet.line([(left, y), (left, y + 32)], faint=True)
        if i < len(held):
            sheet.words(left + cell / 2, y + 20, held[i], size=SMALL)
        else:
            sheet.hatch(left, y, cell, 32)
        left += cell


def _cells(held: Sequence[str], block: int, wide: float) -> list[float]:
    """Widths of a block's cells: what each word needs, and the rest of `wide` shared evenly; empty cells are narrow."""
    needed = [width_of(token, SMALL) + 6 for token in held] + [14.0] * (block - len(held))
    spare = (wide - sum(needed)) / block
    if spare < 0:
        raise InvalidValue(f"the tokens {list(held)} do not fit into a block; use shorter ones, or fewer blocks in a prompt")
    return [cell + spare for cell in needed]


def _memory(sheet: Sheet, y: float, state: Snapshot) -> float:
    """The blocks in memory with their holders; returns where it ends."""
    held = [view for view in state.blocks if view.holders]
    sheet.line([(0, y - 8), (WIDTH, y - 8)], faint=True)
    sheet.words(0, y + 14, "memory", anchor="start", bold=True)
    a_row = 6
    wide = (WIDTH - _LEFT) / a_row
    for place, view in enumerate(held):
        x, top = _LEFT + wide * (place % a_row), y + 48 * (place // a_row)
        shared = view.references > 1
        colour = PALETTE["blue"] if shared else PALETTE["grey"]
        sheet.box(x, top, wide - 10, 40, colour, thick=shared, tint=0.2 if shared else 0.07)
        sheet.words(x + (wide - 10) / 2, top + 17, f"block {view.id}", size=SMALL, bold=True)
        held_by, room = ", ".join(view.holders), wide - 12
        if width_of(held_by, SMALL) > room:
            held_by = f"{len(view.holders)} prompts"
        sheet.words(x + (wide - 10) / 2, top + 33, held_by, size=SMALL, room=room)
    return y + 48 * (-(-len(held) // a_row))
