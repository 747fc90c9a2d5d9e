"""The ledger: the tokens, cost and outcome of every attempt, kept for good.

One row is one *attempt*, not one request. Retries, shadow traffic, and cancelled, failed and cached answers all have rows,
because each of them can cost money. `Row` names its columns after OpenTelemetry's GenAI semantic conventions, and `labkit.*`
where these have no name. `Ledger` keeps rows append-only in a crash-safe SQLite file. `Booked` is the lever that has the
rows written. `spend`, `tokens`, `waste` and `cut` read them back; they count no token twice and never round money. `WASTED`
is the rule of `waste` as SQL, for queries of your own.
"""

from labkit.ledger.accounts import WASTED, cut, spend, tokens, waste
from labkit.ledger.booking import ANY_MODEL, Booked
from labkit.ledger.errors import InvalidRow, LedgerError
from labkit.ledger.row import COLUMNS, Row
from labkit.ledger.store import Ledger, check_names

__all__ = [
    "ANY_MODEL",
    "COLUMNS",
    "WASTED",
    "Booked",
    "InvalidRow",
    "Ledger",
    "LedgerError",
    "Row",
    "check_names",
    "cut",
    "spend",
    "tokens",
    "waste",
]
