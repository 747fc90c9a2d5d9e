"""What every export of one ledger must agree on, and where two of them do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from labkit.ledger import Ledger, Row
from labkit.request import TOKEN_KINDS, Usage

_WIDE = Context(prec=100, rounding=ROUND_HALF_EVEN)
HALF_A_CENT = Decimal("0.005")
"""By how much a sum of money may differ: metrics are binary floats, so only they ever use it."""


@dataclass(frozen=True)
class Totals:
    """Attempts, those of them without a price, tokens by kind (disjoint), and the cost in each currency.

    A currency whose attempts are all unpriced is left out: its cost is not known.
    """

    attempts: int
    unpriced: int
    tokens: Mapping[str, int]
    cost: Mapping[str, Decimal]


@dataclass(frozen=True)
class Mismatch:
    """An export that differs from the ledger: in `what`, which is `said` there and `booked` in the ledger."""

    export: str
    what: str
    booked: Decimal | int | None
    said: Decimal | int | None

    def __str__(self) -> str:
        return f"{self.export}: {self.what} is {self.said}, and {self.booked} in the ledger"


def kinds_of(row: Row) -> Mapping[str, int]:
    """The tokens of one attempt by kind, with unknown counts as 0; a sum of kinds counts no token twice."""
    return (row.usage or Usage(0, 0)).by_kind()


def totals_of(rows: Iterable[Row]) -> Totals:
    """The totals of attempts, exact."""
    attempts = unpriced = 0
    tokens = dict.fromkeys(TOKEN_KINDS, 0)
    cost: dict[str, Decimal] = {}
    for row in rows:
        attempts += 1
        for kind, count in kinds_of(row).items():
            tokens[kind] += count
        if row.cost is None:
            unpriced += 1
        else:
            cost[row.currency] = exact_sum(cost.get(row.currency, Decimal(0)), row.cost)
    return Totals(attempts, unpriced, tokens, cost)


def exact_sum(total: Decimal, more: Decimal) -> Decimal:
    """The sum, with all digits that a ledger can hold, whatever the caller's decimal context is."""
    return _WIDE.add(total, more)


def reconcile(ledger: Ledger, exports: Mapping[str, Totals], *, currencies: Iterable[str] | None = None) -> list[Mismatch]:
    """Where the exports, by name, differ from the ledger; an empty list if they all agree.

    Counts must be equal, and money within half a cent. `currencies` limits the comparison of money (Prometheus's metric is
    in dollars only); None compares all. Raises `LedgerError` if the ledger cannot be read.
    """
    booked = totals_of(ledger.rows())
    only = None if currencies is None else set(currencies)
    return [found for name, said in exports.items() for found in _compared(name, booked, said, only)]


def _compared(name: str, booked: Totals, said: Totals, only: set[str] | None) -> Iterable[Mismatch]:
    for what in ("attempts", "unpriced"):
        if getattr(said, what) != getattr(booked, what):
            yield Mismatch(name, what, getattr(booked, what), getattr(said, what))
    for kind in sorted({*booked.tokens, *said.tokens}):
        if said.tokens.get(kind, 0) != booked.tokens.get(kind, 0):
            yield Mismatch(name, f"{kind} tokens", booked.tokens.get(kind, 0), said.tokens.get(kind, 0))
    for currency in sorted({*booked.cost, *said.cost} if only is None else only):
        ours, theirs = booked.cost.get(currency, Decimal(0)), said.cost.get(currency, Decimal(0))
        if abs(_WIDE.subtract(ours, theirs)) >= HALF_A_CENT:
            yield Mismatch(name, f"cost in {currency}", ours, theirs)
