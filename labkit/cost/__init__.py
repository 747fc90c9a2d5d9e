"""What serving costs: list prices, the cost of a request and of a month, and machines of one's own.

`price_of("gpt-5-mini")` → `Price` · `price_request(usage, price)` → `Cost` by token kind · `priced(inner, price)` is the
lever that writes it on the answer · `hosts()` and `cost_per_mtok()` price a machine · `Scenario`, `month`, `tornado` are the
calculator. Money is `Decimal` from end to end.
"""

from labkit.cost.bill import TOKEN_KINDS, Cost, ledger_price, price_request, price_workflow, priced
from labkit.cost.calculator import (
    BOUNDS,
    MonthlyCost,
    Scenario,
    Swing,
    api_month,
    elasticity,
    hosted_month,
    month,
    price_named,
    tornado,
)
from labkit.cost.hosting import Host, cost_per_mtok, host, hosts, machines_for
from labkit.cost.prices import (
    Price,
    Rates,
    UnknownPrice,
    catalogue_date,
    catalogue_version,
    listed,
    output_input_ratio,
    price_of,
    self_defined,
)

__all__ = [
    "BOUNDS",
    "TOKEN_KINDS",
    "Cost",
    "Host",
    "MonthlyCost",
    "Price",
    "Rates",
    "Scenario",
    "Swing",
    "UnknownPrice",
    "api_month",
    "catalogue_date",
    "catalogue_version",
    "cost_per_mtok",
    "elasticity",
    "host",
    "hosted_month",
    "hosts",
    "ledger_price",
    "listed",
    "machines_for",
    "month",
    "output_input_ratio",
    "price_named",
    "price_of",
    "price_request",
    "price_workflow",
    "priced",
    "self_defined",
    "tornado",
]
