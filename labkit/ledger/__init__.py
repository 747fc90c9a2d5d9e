"""The ledger: what every attempt used, cost and came to, kept for good.

One row is one *attempt*, not one request: retries, shadow traffic, cancelled, failed and cached answers are all there,
for each of them can cost money. `Row` names its columns after OpenTelemetry's GenAI semantic conventions (and `labkit.*`
for what those lack), `Ledger` keeps rows append-only in a crash-safe SQLite file, `Booked` is the lever that has them
written, and `spend`, `tokens` and `waste` read them back without counting a token twice or rounding a cent.
"""

from labkit.ledger.accounts import spend, tokens, waste
from labkit.ledger.booking import ANY_MODEL, Booked
from labkit.ledger.errors import InvalidRow, LedgerError
from labkit.ledger.row import COLUMNS, Row
from labkit.ledger.store import Ledger, check_names

__all__ = [
    "ANY_MODEL",
    "COLUMNS",
    "Booked",
    "InvalidRow",
    "Ledger",
    "LedgerError",
    "Row",
    "check_names",
    "spend",
    "tokens",
    "waste",
]
