"""What another model, or a day's patience, would make of the same calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from labkit.audit.advice import Advice, Fact, Remedy
from labkit.audit.money import OTHERS, Prices, Seen, Tier, Tokens, cost_of, minus, summed
from labkit.cost import Cost, Rates
from labkit.logs import Need

SHORT_IN, SHORT_OUT = 1000, 50
"""A call counts as short up to so many tokens in and out."""
_FEATURES, _SHOWN = 200, 5
_ROUTING = Remedy(
    "Short calls to a cheaper model", "05", "high",
    "graded answers, a threshold that is proven on them, and a router in front of two models",
    f"Calls of at most {SHORT_IN:,} tokens in and {SHORT_OUT} out, at the cheaper model's prices. Nobody knows from a log "
    "how many of its answers would be right: the high end is a bound, the low end is 0, and only graded answers of both "
    "models tell what lies between. Both models are taken to count the same tokens.",
)  # fmt: skip
_BATCH = Remedy(
    "Batch API for what can wait", "07", "medium",
    "answers come back up to a day later, so a queue and a job that fetches them",
    "The calls of the features named by --patient at the provider's listed batch prices. From a batch where no input is "
    "served from a cache to one where as much is as now. Models without a batch price stay as they are.",
)  # fmt: skip
_PRICED = Need("calls with token counts and a price", "each response's usage, and the model's name as its price list has it")


class Routed:
    """Short calls, which a cheaper model may be able to answer. `cheaper`: its name; by default the log's cheapest one."""

    def __init__(self, cheaper: str = "") -> None:
        self._cheaper = cheaper
        self._short, self._calls = Tokens(), 0
        self._tiers: dict[Tier, None] = {}

    def take(self, one: Seen) -> None:
        """The next call."""
        usage = one.call.usage
        if usage is None or one.tier is None:
            return
        self._calls += 1
        self._tiers[one.tier] = None
        if usage.input_tokens <= SHORT_IN and usage.output_tokens <= SHORT_OUT:
            self._short.add(one.tier, one.kinds)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """From nothing to the difference of the prices on all short calls."""
        if not self._calls:
            return Advice(_ROUTING, needs=(_PRICED,))
        name = self._cheaper or min((t[0] for t in self._tiers), key=lambda model: _typical(prices, model), default="")
        rates = prices.rates((name, 0))
        share = f"{self._short.calls:,} of {self._calls:,} calls"
        facts = (
            Fact("short calls", share, self._short.cost(prices).total),
            Fact("the cheaper model", name or "not named by the log"),
        )
        if rates is None:
            need = Need(f"price for the cheaper model {name!r}", "its price in the file that --prices names")
            return Advice(_ROUTING, needs=(need,), facts=facts)
        if not self._cheaper and len({model for model, _ in self._tiers}) < 2:
            need = Need("second model", "a cheaper one to compare with, as --cheaper provider/model")
            return Advice(_ROUTING, needs=(need,), facts=facts)
        high = summed(
            minus(cost_of(kinds, own), cost_of(kinds, rates))
            for tier, kinds in self._short.by_tier.items()
            if (own := prices.rates(tier)) is not None and _dearer(own, rates)
        )
        need = Need("grades", "for a sample of short calls, whether each model's answer was right")
        return Advice(_ROUTING, Cost(), high, (need,), facts)


class Patient:
    """Calls of features that can wait a day, as a batch API asks for. `features`: their names, which only people know."""

    def __init__(self, features: Collection[str]) -> None:
        self._features = frozenset(features)
        self._by: dict[str, Tokens] = {}
        self._calls = 0

    def take(self, one: Seen) -> None:
        """The next call."""
        if one.tier is not None:
            self._calls += 1
            name = one.call.feature
            tokens = self._by.get(name)
            if tokens is None:
                apart = len(self._by) < _FEATURES or name in self._features
                tokens = self._by.setdefault(name if apart else OTHERS, Tokens())
            tokens.add(one.tier, one.kinds)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """The difference of list prices, with and without the discount for cached input."""
        if not self._calls:
            return Advice(_BATCH, needs=(_PRICED,))
        if not self._features:
            each = [(_at_batch(tokens.by_tier, prices)[1].total, name, tokens) for name, tokens in self._by.items()]
            facts = tuple(
                Fact(f"{name or 'all calls'}, if it could wait: saves up to", f"{tokens.calls:,} calls", saved)
                for saved, name, tokens in sorted(each, key=lambda one: (-one[0], one[1]))[:_SHOWN]
                if saved
            )
            need = Need("word on which calls can wait", "the features whose answers may take a day, as --patient NAME")
            return Advice(_BATCH, needs=(need,), facts=facts)
        waits = {name: self._by[name] for name in sorted(self._features) if name in self._by}
        missing = sorted(self._features - waits.keys())
        needs = tuple(Need(f"priced calls of {name}", "the feature of each call, as the log names it") for name in missing)
        if not waits:
            return Advice(_BATCH, needs=needs)
        ends = [_at_batch(tokens.by_tier, prices) for tokens in waits.values()]
        low, high = (summed(pair[at] for pair in ends) for at in (0, 1))
        without = sorted({t[0] for one in waits.values() for t in one.by_tier if prices.rates(t, batch=True) is None})
        facts = (Fact("calls that can wait", f"{sum(one.calls for one in waits.values()):,} of {self._calls:,}"),)
        facts += tuple(Fact("without a batch price", name or "(no model)") for name in without[:_SHOWN])
        return Advice(_BATCH, low, high, needs, facts)


def _at_batch(by_tier: Mapping[Tier, list[int]], prices: Prices) -> tuple[Cost, Cost]:
    """What a batch saves where it serves no input from a cache, and where it serves as much as now; the smaller first."""
    lows, highs = [], []
    for tier, kinds in by_tier.items():
        own, batch = prices.rates(tier), prices.rates(tier, batch=True)
        if own is None or batch is None:
            continue
        paid, uncached = cost_of(kinds, own), (kinds[0] + kinds[1] + kinds[2], 0, 0, *kinds[3:])
        highs.append(minus(paid, cost_of(kinds, batch)))
        fresh = cost_of(uncached, batch)
        lows.append(minus(paid, fresh) if fresh.total < paid.total else Cost())
    low, high = sorted((summed(lows), summed(highs)), key=lambda cost: cost.total)
    return low, high


def _typical(prices: Prices, model: str) -> tuple[object, str]:
    rates = prices.rates((model, 0))
    assert rates is not None, "only models with a price are counted"
    return (3 * rates.fresh_input + rates.visible_output, model)


def _dearer(own: Rates, other: Rates) -> bool:
    return own.fresh_input + own.visible_output > other.fresh_input + other.visible_output
