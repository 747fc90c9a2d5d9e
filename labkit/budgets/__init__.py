"""Budgets that hold: what a request can cost at most is set aside before it is sent, and what it did cost is charged.

`SpendingLimit` says how much whom may spend, a day, a month or in the last so many seconds (`Daily`, `Monthly`, `Rolling`).
`Purses` keeps the limits, what is spent and what is held in a file that threads and processes share. `Budgeted` is the lever
that holds a stack to them. A request that does not fit is refused with `BudgetExhausted`, which says what is left and when
it fits.

    purses = Purses("purses.db")
    purses.allow(SpendingLimit(Decimal(50), Monthly(), tenant="*"))
    stack(Budgeted(purses, {"*": price}), engine=engine)
"""

from labkit.budgets.budgeted import Budgeted
from labkit.budgets.errors import BudgetExhausted, Overspent, PursesError
from labkit.budgets.limits import EVERY, Spender, SpendingLimit, in_force
from labkit.budgets.purses import Hold, Purses, Standing
from labkit.budgets.spans import Daily, Monthly, Rolling, Span

__all__ = [
    "EVERY",
    "BudgetExhausted",
    "Budgeted",
    "Daily",
    "Hold",
    "Monthly",
    "Overspent",
    "Purses",
    "PursesError",
    "Rolling",
    "Span",
    "Spender",
    "SpendingLimit",
    "Standing",
    "in_force",
]
