"""What serving costs: list prices, the cost of a request and of a month, and self-hosted machines.

Money is `Decimal` throughout, prices are per million tokens, and a bad value raises an error that names it.

- List prices: `price_of(model, provider=None, at=None) -> Price`, `price_named("provider/model") -> Price`,
  `listed(provider=None, at=None) -> Iterator[Price]`, `self_defined(model, input, output, cached=None, cache_write=None)
  -> Price`, `output_input_ratio(provider, at=None) -> dict[str, Decimal]`, `catalogue_version() -> str` and
  `catalogue_date(at=None) -> date`. A `Price` has `rates` (and `batch`), which hold up to the first of its `tiers`. Where it
  depends on the hour it also has a `day`: see `price.at(moment)` and `price.over_the_day()`.
- Cost of usage: `price_request(usage, price, batch=False) -> Cost` by disjoint kind of token, `price_workflow(usages, price)
  -> Cost`. A whole stack is priced by `labkit.ledger.Booked(ledger, {"model": price})`.
- What a request can cost at most, before it is sent: `worst_case(price, input_tokens, output_tokens) -> Decimal`, with
  `most_input_tokens(request)` and `most_output_tokens(request, price)`.
- Machines: `hosts() -> dict[str, Host]`, `host(key) -> Host`, `machines_for(peak, rate, headroom=0) -> int`,
  `cost_per_mtok(usd_per_hour, tokens_per_second, utilisation=1.0) -> Decimal`.
- The calculator: `Scenario` (and its `to_query`, `from_query`, `to_json`, `from_json`, `save`), `month(scenario)`,
  `api_month(scenario, price)` and `hosted_month(scenario) -> MonthlyCost`, `tornado(scenario, cost)` and
  `elasticity(scenario, cost, name)`, where `cost` is any function of a scenario.
"""

from labkit.cost.bill import Cost, price_request, price_workflow
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
from labkit.cost.catalogue import catalogue_date, catalogue_version, listed, output_input_ratio, price_of
from labkit.cost.hosting import Host, cost_per_mtok, host, hosts, machines_for
from labkit.cost.prices import MTOK, Price, Rates, UnknownPrice, self_defined
from labkit.cost.worst import most_input_tokens, most_output_tokens, worst_case
from labkit.request import TOKEN_KINDS

__all__ = [
    "BOUNDS",
    "MTOK",
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
    "listed",
    "machines_for",
    "month",
    "most_input_tokens",
    "most_output_tokens",
    "output_input_ratio",
    "price_named",
    "price_of",
    "price_request",
    "price_workflow",
    "self_defined",
    "tornado",
    "worst_case",
]
