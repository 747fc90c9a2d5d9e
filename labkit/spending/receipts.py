"""One request's receipt: every attempt of it, with what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from labkit.cost import Cost, Price
from labkit.ledger import COLUMNS, WASTED, Ledger, LedgerError, Row
from labkit.spending.rates import by_kind

_STORED = ", ".join(f'"{column.name}"' for column in COLUMNS)
_KEY = '"labkit.idempotency_key"'
_SELECT = f"SELECT {_STORED}, {WASTED} FROM attempts WHERE"


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One attempt: its `row`, why it served nobody ("" where it served), and its cost by kind of token where known."""

    row: Row
    wasted: str
    kinds: Cost | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The attempts of one request, in the order in which they were booked."""

    lines: tuple[ReceiptLine, ...]

    @property
    def unpriced(self) -> int:
        """The attempts whose cost nobody knows."""
        return sum(line.row.cost is None for line in self.lines)

    @property
    def totals(self) -> Mapping[str, Decimal]:
        """What is known to have been paid, by currency; empty where nothing is known."""
        found: dict[str, Decimal] = {}
        with localcontext(prec=60):
            for line in self.lines:
                if line.row.cost is not None:
                    found[line.row.currency] = found.get(line.row.currency, Decimal(0)) + line.row.cost
        return found


def receipt(ledger: Ledger, number: int, prices: Mapping[str, Price] | None = None) -> Receipt:
    """The receipt of the request to which the ledger's attempt `number` (from 1) belongs.

    Attempts of one organisation with one idempotency key are one request. `prices`, as `labkit.ledger.Booked` takes them,
    say what each kind of token cost. Raises `LedgerError` where the ledger has no such attempt.
    """
    found = ledger.select(f'SELECT "labkit.tenant", {_KEY} FROM attempts WHERE rowid = ?', [number])
    if not found:
        raise LedgerError(f"the ledger {ledger.path} has no attempt number {number}; it has 1 to {len(ledger)}", ledger.path)
    organisation, key = found[0]
    if key:  # the comparison with '' lets SQLite use the index of keyed attempts
        condition, values = f"{_KEY} <> '' AND \"labkit.tenant\" = ? AND {_KEY} = ?", [organisation, key]
    else:
        condition, values = "rowid = ?", [number]
    rows = ledger.select(f"{_SELECT} {condition} ORDER BY rowid", values)
    lines = []
    for *stored, wasted in rows:
        row = Row.from_sql(tuple(stored))
        lines.append(ReceiptLine(row, wasted or "", by_kind(row, prices or {})))
    return Receipt(tuple(lines))
