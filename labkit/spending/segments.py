"""What the attempts of one segment of a bill were, and what they cost: the sums that everything else here is made of.

The ledger's own SQL adds the attempts up, so that a ledger of millions of rows is never held in memory; only sums come back,
one row for each segment, class of attempt and rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

from labkit.cost import MTOK, Cost, Rates
from labkit.request import TOKEN_KINDS, Usage
from labkit.spending.classes import USAGE, classed
from labkit.spending.slices import REQUESTS, Slice, columns

_QUERY = """{sql}SELECT {groups}currency, class, CASE WHEN class = 'split' THEN rate END AS of_rate, count(*), {usage},
  coalesce(decimal_sum(cost), '0') FROM classed GROUP BY {groups}currency, class, of_rate"""


@dataclass(slots=True)
class Segment:
    """The attempts of one value of the dimensions, in one currency, by what is known of their cost.

    attempts = served + unpriced + split + unsplit. `served`: a cache repeated an answer for nothing. `unpriced`: nobody
    knows the cost. `split`: the price lists say what each kind of token cost; `usage` and `cost` are of these. `unsplit`:
    the cost is known as one sum, `unsplit_cost`. `tokens` are those of all attempts.
    """

    key: tuple[Any, ...]
    currency: str
    requests: int = 0
    served: int = 0
    unpriced: int = 0
    split: int = 0
    unsplit: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Cost = field(default_factory=Cost)
    unsplit_cost: Decimal = Decimal(0)
    tokens: Usage = field(default_factory=Usage)

    @property
    def attempts(self) -> int:
        """All attempts."""
        return self.served + self.unpriced + self.split + self.unsplit

    @property
    def total(self) -> Decimal:
        """What is known to have been paid."""
        return self.cost.total + self.unsplit_cost


def segments(part: Slice, by: Sequence[str]) -> list[Segment]:
    """The slice by the values of `by` and by currency, in their order. Raises `LedgerError` where it cannot be read."""
    source = classed(part, by)
    groups = "".join(f"d{index}, " for index in range(len(by)))
    query = _QUERY.format(sql=source.sql, groups=groups, usage=", ".join(f"sum({name})" for name in USAGE))
    found: dict[tuple[Any, ...], Segment] = {}
    with localcontext(prec=100, rounding=ROUND_HALF_EVEN):
        for row in _rows(part, query, source.values):
            key, (currency, kind, rate, number, *counts, amount) = row[: len(by)], row[len(by) :]
            segment = found.setdefault((*key, currency), Segment(key, currency))
            usage = Usage(*map(int, counts))
            segment.tokens += usage
            setattr(segment, kind, getattr(segment, kind) + int(number))
            if kind == "split":
                segment.usage += usage
                segment.cost += _by_kind(usage, source.rates[int(rate)], Decimal(amount))
            elif kind == "unsplit":
                segment.unsplit_cost += Decimal(amount)
    condition, values = part.where()
    query = (
        f'SELECT {columns(by)[0]}"labkit.currency" AS currency, {REQUESTS} FROM attempts WHERE {condition} '
        f"GROUP BY {groups}currency"
    )
    for row in _rows(part, query, values):
        found[row[:-1]].requests = int(row[-1])
    return [found[key] for key in sorted(found)]


def requests_in(part: Slice) -> int:
    """The requests of the slice: one whose attempts are in several segments counts once."""
    condition, values = part.where()
    ((number,),) = _rows(part, f"SELECT {REQUESTS} FROM attempts WHERE {condition}", values)
    return int(number)


def _rows(part: Slice, query: str, values: Sequence[object]) -> Iterable[tuple[Any, ...]]:
    frame = part.ledger.frame(query, values)
    return list(zip(*(frame.iloc[:, index].tolist() for index in range(frame.shape[1])), strict=True))


def _by_kind(usage: Usage, rates: Rates, booked: Decimal) -> Cost:
    """`booked` by kind of token. The ledger rounds each attempt at 18 places; that difference is put on the largest kind."""
    amounts = {kind: count * rates.of(kind) / MTOK for kind, count in usage.by_kind().items()}
    amounts[max(TOKEN_KINDS, key=lambda kind: amounts[kind])] += booked - sum(amounts.values())
    return Cost(**amounts)
