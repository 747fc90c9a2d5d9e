"""The portal's bill as a learner sees it: one chain of levers, a chapter after the other (see `labkit.portal.bill`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from labkit.portal import PORTAL, Line, Link, Portal
from labkit.workbook.exercise import ExerciseError
from labkit.workbook.kept import from_json
from labkit.workbook.recorded import load
from labkit.workbook.store import Entry

HEADER = (
    "chapter", "lever", "of", "the month before (USD)", "after", "saved here", "saved alone", "more wrong answers", "from",
)  # fmt: skip


def item(line: Line) -> str:
    """The name under which the journal keeps a line: a chapter has one for each feature."""
    return f"{line.chapter} {line.of}"


def from_entry(entry: Entry) -> Line | None:
    """The line that the journal kept; None for an entry that this version does not understand."""
    try:
        line = from_json(entry["line"])
    except (KeyError, ExerciseError):
        return None
    return line if isinstance(line, Line) else None


def recorded(paths: Iterable[Path]) -> tuple[Line, ...]:
    """The lines that chapters' recordings hold."""
    return tuple(line for path in paths for line in load(path).billed)


def merged(own: Mapping[str, Line], before: Sequence[Line]) -> tuple[tuple[Line, bool], ...]:
    """All lines in the order of their chapters, and whether each is the learner's own; theirs come before recorded ones."""
    found = {item(line): (line, False) for line in before} | {name: (line, True) for name, line in own.items()}
    return tuple(found[name] for name in sorted(found))


def rows(links: Sequence[Link], own: Sequence[bool]) -> list[tuple[str, ...]]:
    """The chain as texts for a table with the columns of `HEADER`; `own`: whether each line is the learner's."""
    return [_row(link, mine) for link, mine in zip(links, own, strict=True)]


def verdict(link: Link, portal: Portal = PORTAL) -> str:
    """What the line means for whoever pays, in words: what it saves, and what it saves with wrong answers paid for."""
    saved, price = link.saved, portal.wrong_answer_usd
    if not saved and not link.wrong:
        return "This line changes nothing on the bill."
    first = f"It saves {_usd(saved)} USD a month" if saved >= 0 else f"It costs {_usd(-saved)} USD a month"
    first += f" of {_usd(link.before)}"
    if round(saved) != round(link.alone):
        first += f", on top of the lines above; as the only lever it would be {_usd(link.alone)}"
    if not link.wrong:
        return f"{first}."
    paid = Decimal(repr(link.wrong)) * price
    net = saved - paid
    end = f"{'save' if net >= 0 else 'cost'} {_usd(abs(net))} USD a month"
    if link.wrong < 0:
        fewer = f"{-link.wrong:,.0f} answers a month fewer are wrong"
        return f"{first}, and {fewer}. At {price} USD a wrong answer, both together {end}."
    each = link.usd_per_wrong_answer or Decimal(0)
    return (
        f"{first}, and {link.wrong:,.0f} more answers a month are wrong: each is sold for {each:,.4f} USD, and costs the "
        f"portal {price} USD. With that paid for, the line would {end}."
    )


def _row(link: Link, own: bool) -> tuple[str, ...]:
    line = link.line
    wrong = f"{link.wrong:+,.0f}" if link.wrong else "-"
    money = (_usd(value) for value in (link.before, link.after, link.saved, link.alone))
    return line.chapter, line.name, line.of, *money, wrong, "your run" if own else "the recording"


def _usd(value: Decimal) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or not value else f"{value:,.2f}"
