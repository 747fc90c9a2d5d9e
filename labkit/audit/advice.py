"""`Advice`: what one finding of an audit says, and the plan that pulls the levers one after another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from labkit.audit.money import Prices, Seen, part
from labkit.cost import TOKEN_KINDS, Cost
from labkit.logs import Need

Effort = Literal["low", "medium", "high"]
_WEIGHT = {"low": 1, "medium": 2, "high": 4}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number beside a finding: what it is of, the number in words, and money for the time of the log where it has some."""

    what: str
    value: str
    money: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What could be done: how its saving is worked out and where that fails (`method`), what pulling it takes, and why.

    `chapter` is the book's. `prompts` says whether its saving can only be told from prompts.
    """

    name: str
    chapter: str
    effort: Effort
    because: str
    method: str
    prompts: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """What a lever would save on the bill of the log, or why the log cannot tell.

    `low` and `high` are the ends of the range, by kind of token, for the time that the log covers; both None where it cannot
    tell, and then `needs` says what is missing. `facts` are further numbers.
    """

    remedy: Remedy
    low: Cost | None = None
    high: Cost | None = None
    needs: tuple[Need, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def middle(self) -> Decimal | None:
        """Half way between the ends of the range; None where the log cannot tell."""
        return None if self.low is None or self.high is None else (self.low.total + self.high.total) / 2


class Finder(Protocol):
    """What goes through the calls of a log once, and then gives its advice."""

    def take(self, one: Seen) -> None:
        """The next call."""

    def advice(self, prices: Prices, bill: Cost) -> Advice:
        """What all calls together say; `bill` is what they cost."""


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One lever in the plan, with what it saves after those above it.

    `low` is where all levers save the low end of their ranges, `high` where all save the high end. `high` may be the smaller
    one: those above have then left less to save. Each adds up over the lines to what the whole plan saves. `share` is the
    larger of the two as a share of the whole bill.
    """

    advice: Advice
    low: Decimal
    high: Decimal
    share: float


def plan_of(found: Iterable[Advice], bill: Cost) -> tuple[PlanLine, ...]:
    """The levers in the order of dollars by effort, each on what those before it left of the bill.

    The order is that of the middle of the range over the weight of the effort (low 1, medium 2, high 4). A lever takes the
    share of each kind of token that it takes alone, of what is left: levers that meet on the same tokens are never added
    up, so that all together save no more than the bill. That the share is the same on what is left is an assumption, since
    a log does not say whether the tokens that two levers take are the same ones.
    """
    pulled = [one for one in found if (one.middle or 0) > 0]
    pulled.sort(key=lambda one: (-(one.middle or Decimal(0)) / _WEIGHT[one.remedy.effort], one.remedy.name))
    lines = []
    left = {end: {kind: part(bill, kind) for kind in TOKEN_KINDS} for end in ("low", "high")}
    for one in pulled:
        saved = {}
        for end, alone in (("low", one.low), ("high", one.high)):
            before = sum(left[end].values(), Decimal(0))
            for kind in TOKEN_KINDS:
                whole = part(bill, kind)
                if whole and alone is not None:
                    left[end][kind] *= 1 - min(part(alone, kind) / whole, Decimal(1))
            saved[end] = before - sum(left[end].values(), Decimal(0))
        most = max(saved.values())
        lines.append(PlanLine(one, saved["low"], saved["high"], float(most / bill.total) if bill.total else 0.0))
    return tuple(lines)
