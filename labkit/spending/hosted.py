"""The rent of a machine, shared out to the attempts that ran on it; what it stood idle for is a line of its own.

Processor sharing: the cost of each instant is split among the attempts that run in it, equally or by the tokens that each
handles in a second; an instant in which none runs is idle. An attempt's share is w · (V(end) − V(start)), where V(t) is the
integral of 1 / W over the busy time, and W the weight of all that run. So one pass over the sorted starts and ends does.

All of it is done in whole numbers (nanoseconds, and V in units of 2⁻¹²⁸), and rounded once, by the largest remainders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

from labkit.extras import extra
from labkit.request import InvalidValue
from labkit.spending.money import apportion, rounded
from labkit.spending.slices import SERVED, Slice, columns

if TYPE_CHECKING:
    import pandas as pd

_NS = 1_000_000_000
_FINE = 1 << 128
PLACES = 12
"""The decimals of an attempt's share: a millionth of a microdollar."""
Weighing = Literal["equal", "tokens"]


@dataclass(frozen=True, slots=True)
class Rental:
    """A machine, or machines that work as one, rented from `since` to `until` (seconds since 1970) for `invoice`.

    Raises `InvalidValue` for a period that is none and for an invoice that is not in whole cents.
    """

    invoice: Decimal
    since: float
    until: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.since) and math.isfinite(self.until) and self.since < self.until):
            raise InvalidValue(f"the rental is from {self.since} to {self.until}; give seconds since 1970 in their order")
        if not isinstance(self.invoice, Decimal) or not self.invoice.is_finite() or self.invoice < 0:
            raise InvalidValue(f"invoice is {self.invoice!r}; write it as Decimal('…'), from 0")
        if self.invoice != rounded(self.invoice, 2):
            raise InvalidValue(f"invoice is {self.invoice}; an invoice is in whole cents")

    @classmethod
    def at(cls, usd_per_hour: Decimal, since: float, until: float) -> Rental:
        """The rental at a price per hour, rounded to the cent once, halves to even, as an invoice is."""
        hours = (Fraction(until) - Fraction(since)) / 3600
        exact = Fraction(usd_per_hour) * hours
        return cls(Decimal(round(exact * 100)).scaleb(-2), since, until)


@dataclass(frozen=True)
class RentShares:
    """What each attempt has to pay of a `Rental`, and what nobody used.

    `shares` is by attempt id; they and `idle` add up to the invoice exactly. `busy_s` is the time in which something ran.
    `untimed` counts the attempts of the slice whose start or end nobody knows: others pay for what they used.
    """

    rental: Rental
    shares: Mapping[str, Decimal] = field(repr=False)
    idle: Decimal
    busy_s: float
    untimed: int
    by: tuple[str, ...] = ()
    keys: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)

    def table(self, places: int = PLACES) -> pd.DataFrame:
        """The shares added up by the dimensions, the largest first, and then the idle line, whose dimensions are None.

        Columns: `line` ("used" or "idle"), those of `by`, `attempts`, `cost`. The costs have `places` decimals and add up to
        the invoice: with 2, each team is told whole cents.
        """
        with extra("analysis"):
            import pandas as pd

        sums: dict[tuple[Any, ...], tuple[int, Decimal]] = {}
        for attempt, share in self.shares.items():
            number, amount = sums.get(self.keys[attempt], (0, Decimal(0)))
            sums[self.keys[attempt]] = (number + 1, amount + share)
        ordered = sorted(sums.items(), key=lambda item: -item[1][1])
        lines: list[tuple[Any, ...]] = [("used", *key, number) for key, (number, _) in ordered]
        lines.append(("idle", *(None for _ in self.by), 0))
        exact = [Fraction(amount) for _, (_, amount) in ordered] + [Fraction(self.idle)]
        costs = apportion(self.rental.invoice, exact, places)
        rows = [(*line, cost) for line, cost in zip(lines, costs, strict=True)]
        return pd.DataFrame(rows, columns=["line", *self.by, "attempts", "cost"], dtype=object)


def share_rent(part: Slice, rental: Rental, by: Sequence[str] = (), weigh: Weighing = "equal") -> RentShares:
    """The rent of a machine by the attempts of `part`, which are all that ran on it in that time.

    An attempt runs from when it was sent to its last event; of one that reaches over an end of the rental, only what lies
    within counts. Attempts that a cache answered use no machine. With "tokens", an attempt weighs as many tokens as it
    handles in a second, without those read from a cache (one at least). Of several machines, share out each with its own
    slice. The attempts of the period are held in memory, unlike those of a bill. Raises `InvalidValue` where `part` has a
    period of its own, which would leave out attempts that began before it.
    """
    by = tuple(dict.fromkeys(by))
    if weigh not in get_args(Weighing):
        raise InvalidValue(f"weigh is {weigh!r}; use one of {', '.join(get_args(Weighing))}")
    if part.since is not None or part.until is not None:
        raise InvalidValue("the slice has a period, and so has the rental; leave since and until of the slice out")
    chosen, _ = columns(by)
    condition, values = part.where()
    frame = part.ledger.frame(
        f'SELECT {chosen}"labkit.attempt_id" AS id, "labkit.started_unix" AS start, '
        '"labkit.started_unix" + "labkit.done" - "labkit.sent" AS "end", '
        'coalesce("gen_ai.usage.input_tokens", 0) - coalesce("gen_ai.usage.cache_read.input_tokens", 0) '
        '+ coalesce("gen_ai.usage.output_tokens", 0) AS tokens '
        f"FROM attempts WHERE {condition} AND NOT coalesce({SERVED}, 0)",
        values,
    )
    spans: list[tuple[str, int, int, int]] = []
    keys: dict[str, tuple[Any, ...]] = {}
    first, last = round(rental.since * _NS), round(rental.until * _NS)
    untimed = 0
    for *key, attempt, start, end, tokens in frame.itertuples(index=False, name=None):
        if not (_known(start) and _known(end)):
            untimed += 1
            continue
        began, ended = round(start * _NS), round(end * _NS)
        if max(began, first) < min(ended, last):
            weight = 1 if weigh == "equal" else max(1, max(1, int(tokens)) * _NS * 1024 // (ended - began))
            spans.append((attempt, max(began, first), min(ended, last), weight))
            keys[attempt] = tuple(key)
    parts, busy = _processor_sharing([span[1:] for span in spans])
    rent = Fraction(rental.invoice) / (last - first)
    idle = Fraction(rental.invoice) - sum(parts, Fraction(0)) * rent
    *shares, left = apportion(rental.invoice, [*(part * rent for part in parts), idle], PLACES)
    paid = dict(zip((span[0] for span in spans), shares, strict=True))
    return RentShares(rental, paid, left, busy / _NS, untimed, by, keys)


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _processor_sharing(spans: Sequence[tuple[int, int, int]]) -> tuple[list[Fraction], int]:
    """What each (start, end, weight) has of the time in which any runs, ns; and that time."""
    changes = sorted(
        [(start, True, index) for index, (start, _, _) in enumerate(spans)]
        + [(end, False, index) for index, (_, end, _) in enumerate(spans)]
    )
    drawn = [0] * len(spans)
    running = total = passed = busy = before = 0
    for at, begins, index in changes:
        if running:
            passed += (at - before) * _FINE // total
            busy += at - before
        before = at
        weight = spans[index][2]
        drawn[index] += -passed if begins else passed
        running, total = (running + 1, total + weight) if begins else (running - 1, total - weight)
    return [Fraction(amount * spans[index][2], _FINE) for index, amount in enumerate(drawn)], busy
