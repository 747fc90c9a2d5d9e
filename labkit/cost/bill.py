"""What a request, a workflow and a month cost, by kind of token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal

from labkit.cost.prices import MTOK, Price
from labkit.request import Usage


@dataclass(frozen=True, slots=True)
class Cost:
    """Money by disjoint kind of token, in one currency; `total` is their exact sum."""

    fresh_input: Decimal = Decimal(0)
    cached_input: Decimal = Decimal(0)
    cache_write: Decimal = Decimal(0)
    visible_output: Decimal = Decimal(0)
    reasoning: Decimal = Decimal(0)

    @property
    def total(self) -> Decimal:
        """The whole cost."""
        return sum((getattr(self, f.name) for f in fields(self)), Decimal(0))

    @property
    def input(self) -> Decimal:
        """C_in: the cost of fresh, cached and cache-write input."""
        return self.fresh_input + self.cached_input + self.cache_write

    @property
    def output(self) -> Decimal:
        """C_out: the cost of visible output and reasoning."""
        return self.visible_output + self.reasoning

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: Decimal | int) -> Cost:
        return Cost(*(getattr(self, f.name) * times for f in fields(self)))


def price_request(usage: Usage, price: Price, batch: bool = False) -> Cost:
    """Cost of one attempt: Σ over kinds of tokens × rate / 10⁶, at the tier that its input tokens reach.

    Source: the providers' price pages. Reasoning tokens are billed as output unless the list has a price for them. `Usage`
    splits the tokens into disjoint kinds, so no cached token is counted twice. Amounts are in `price.currency`. Raises
    `UnknownPrice` where `batch` is asked for and the list has no batch price.
    """
    rates = price.rates_for(usage.input_tokens, batch)
    amounts = {kind: tokens * rates.of(kind) / MTOK for kind, tokens in usage.by_kind().items()}
    return Cost(**amounts)


def price_workflow(usages: Iterable[Usage], price: Price, batch: bool = False) -> Cost:
    """Cost of a workflow: the sum over `usages`, one for every attempt of every call, retries and shadow calls included."""
    return sum((price_request(usage, price, batch) for usage in usages), Cost())
