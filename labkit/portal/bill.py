"""The bill as one chain: each line starts where the last one ended, so the lines add up to the whole change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from labkit.portal.changes import Change
from labkit.portal.month import Month, today
from labkit.portal.traffic import PORTAL, Portal
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Line:
    """One lever on the bill.

    `name`: the lever in words. `of`: the feature that it acts on. `change`: what it does to the month. `wrong`: more answers
    that are wrong than before, as a share of the feature's questions (below 0: fewer). Raises `InvalidValue` for an empty
    text and a `wrong` beyond -1 to 1.
    """

    chapter: str
    name: str
    of: str
    change: Change
    source: str
    wrong: float = 0.0

    def __post_init__(self) -> None:
        for what in ("chapter", "name", "of", "source"):
            if not getattr(self, what).strip():
                raise InvalidValue(f"{what} of a line of the bill is empty; say it in words")
        if not (math.isfinite(self.wrong) and -1 <= self.wrong <= 1):
            raise InvalidValue(f"wrong is {self.wrong}; give a share of the questions, from -1 to 1")


@dataclass(frozen=True, slots=True)
class Link:
    """A line in the chain, in USD a month.

    `before` and `after` are the portal's whole bill; `alone` is what the lever saves when it is the only one. `wrong`: more
    wrong answers a month.
    """

    line: Line
    before: Decimal
    after: Decimal
    alone: Decimal
    wrong: float

    @property
    def saved(self) -> Decimal:
        """What the lever saves here, after all before it; below 0 where it costs money."""
        return self.before - self.after

    @property
    def usd_per_wrong_answer(self) -> Decimal | None:
        """The break-even: what is saved for each further wrong answer. None where there is no further one."""
        return self.saved / Decimal(repr(self.wrong)) if self.wrong > 0 else None


def chain(lines: Sequence[Line], portal: Portal = PORTAL) -> tuple[Link, ...]:
    """The lines in their order, from today's month on, each on what the last one left.

    The savings add up to the whole: Σ saved = first before − last after. Where levers meet on the same tokens, what one
    saves here is not what it saves alone, and the difference is their interaction. A feature's wrong answers are counted
    on the questions that its users ask, however many of them reach a model.
    """
    begin = month = today(portal)
    asked = {"desk": portal.questions, "summaries": portal.bulk, "assistant": portal.sessions * portal.assistant.turns}
    links: list[Link] = []
    for line in lines:
        after = line.change.made(month)
        alone = begin.usd - line.change.made(begin).usd
        links.append(Link(line, month.usd, after.usd, alone, line.wrong * asked.get(line.of, 0)))
        month = after
    return tuple(links)


def last(lines: Sequence[Line], portal: Portal = PORTAL) -> Month:
    """The month with all lines' changes made."""
    month = today(portal)
    for line in lines:
        month = line.change.made(month)
    return month
