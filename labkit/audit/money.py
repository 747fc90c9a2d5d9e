"""Tokens added up by what they cost, so that a million calls are priced by a few multiplications, each of them exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from labkit.audit.prompts import blocks
from labkit.cost import MTOK, TOKEN_KINDS, Cost, Price, Rates, UnknownPrice
from labkit.logs import Call, model_price

Tier = tuple[str, int]
"""A model as the log names it, and how many of its price's context tiers a call reaches."""
Kinds = tuple[int, int, int, int, int]
"""Tokens by kind, in the order of `TOKEN_KINDS`."""
NOTHING: Kinds = (0, 0, 0, 0, 0)
MOST = 10_000
"""So many models, features and tenants are told apart."""
OTHERS = "(others)"
"""What all beyond these are counted as."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A call as the findings take it: `tier` is None where it has no price or no usage; `kinds` are its tokens.

    `chain` stands for its prompt, as `prompts.blocks` gives it.
    """

    call: Call
    tier: Tier | None
    kinds: Kinds
    chain: tuple[bytes, ...] = ()


class Prices:
    """The prices of the models of a log, looked up once each: one's own first, then the catalogue's mean over the day."""

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own = own
        self._found: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        """The price of `model`; None for one that nobody has a price of, and for all after the first `MOST` names."""
        if model not in self._found:
            if len(self._found) >= MOST:
                return None
            try:
                self._found[model] = self._own[model] if model in self._own else model_price(model)
            except UnknownPrice:
                self._found[model] = None
        return self._found[model]

    def seen(self, call: Call) -> Seen:
        """`call` with its tokens by kind, and the tier that it is billed at."""
        usage = call.usage
        if usage is None:
            return Seen(call, None, NOTHING, blocks(call))
        into, out = usage.input_tokens, usage.output_tokens
        cached, written, thought = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        kinds = (into - cached - written, cached, written, out - thought, thought)
        price = self.of(call.model)
        if price is None:
            return Seen(call, None, kinds, blocks(call))
        reached = sum(into > start for start, _ in price.tiers) if price.tiers else 0
        return Seen(call, (call.model, reached), kinds, blocks(call))

    def rates(self, tier: Tier, batch: bool = False) -> Rates | None:
        """The rates of a tier; None where a batch price is asked for and none is listed."""
        price = self.of(tier[0])
        if price is None or (batch and price.batch is None):
            return None
        start = price.tiers[tier[1] - 1][0] if tier[1] else -1
        return price.rates_for(start + 1, batch)

    @property
    def sources(self) -> str:
        """Where the prices that were found come from."""
        found = {f"{price.source}, {price.as_of}".rstrip(", ") for price in self._found.values() if price is not None}
        return "; ".join(sorted(found))


class Tokens:
    """Tokens by tier, the calls that they are of, and how many of these have no price."""

    def __init__(self) -> None:
        self.by_tier: dict[Tier, list[int]] = {}
        self.calls = self.unpriced = 0

    def add(self, tier: Tier | None, kinds: Kinds) -> None:
        """The tokens of one call; those without a price are not counted here, but its call is."""
        self.calls += 1
        if tier is None:
            self.unpriced += 1
            return
        total = self.by_tier.get(tier)
        if total is None:
            total = self.by_tier[tier] = [0, 0, 0, 0, 0]
        for place in range(5):
            total[place] += kinds[place]

    def cost(self, prices: Prices) -> Cost:
        """What the tokens cost, by kind."""
        return summed(
            cost_of(kinds, rates) for tier, kinds in self.by_tier.items() if (rates := prices.rates(tier)) is not None
        )


def cost_of(kinds: Iterable[int], rates: Rates) -> Cost:
    """Tokens × rate / 10⁶, by kind."""
    return Cost(*(count * rates.of(kind) / MTOK for kind, count in zip(TOKEN_KINDS, kinds, strict=True)))


def summed(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    return sum(costs, Cost())


def minus(first: Cost, second: Cost) -> Cost:
    """The difference of two costs, kind by kind."""
    return first + second * -1


def part(of: Cost, name: str) -> Decimal:
    """The money of one kind."""
    amount: Decimal = getattr(of, name)
    return amount
