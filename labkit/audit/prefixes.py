"""The beginnings that prompts share: what the provider's prompt cache would serve, by its own rules and prices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from labkit.audit.advice import Advice, Fact, Remedy
from labkit.audit.money import Prices, Seen, Tier
from labkit.audit.prompts import BLOCK_BYTES
from labkit.audit.repeats import PROMPTS
from labkit.audit.sample import Recent
from labkit.caches import provider
from labkit.cost import MTOK, Cost
from labkit.logs import Need

_KEPT, _BEFORE = 600_000, 2_000_000
"""Blocks that are remembered: of each cache, and of all prompts. Beyond these, the oldest are forgotten."""
_RULES = {"openai": ("openai, in memory", "openai, 24 hours"), "anthropic": ("anthropic, 5 minutes", "anthropic, 1 hour")}

_PREFIX = Remedy(
    "Stable prefix for the provider's cache", "03", "low",
    "what is the same for all goes first in the prompt; with Anthropic a mark at its end, too",
    f"Prompts are cut into blocks of {BLOCK_BYTES} bytes (about 128 tokens), each hashed with all before it. A block is "
    "read from the cache while its last use lies within the provider's lifetime; smallest prefix, step and price of writes "
    "are the provider's own, and tokens that were cached already do not count. Where writing costs more, only what is read "
    "later is written, which nobody knows beforehand: the saving is a bound. The range is from the short to the long "
    "lifetime that is sold.",
    prompts=True,
)  # fmt: skip
_RULES_AND_TIME = Need(
    "calls with a time to a provider with published rules",
    "when each was sent, and its model's name (Anthropic's or OpenAI's)",
)


class _Cache:
    """One provider's cache: which blocks are kept, and what it read and wrote, by tier."""

    def __init__(self, rules: provider.CacheRules) -> None:
        self.rules = rules
        self.read: Counter[Tier] = Counter()
        self.written: Counter[Tier] = Counter()
        self._kept: Recent[bytes, tuple[float, float, float]] = Recent(_KEPT)
        """Of each block: when it was written and used, and its tokens that were not yet charged for."""

    @property
    def forgotten(self) -> int:
        return self._kept.forgotten

    def take(self, tier: Tier, chain: Sequence[bytes], now: float, tokens: int, cached: int) -> None:
        rules, each = self.rules, tokens / len(chain)
        found = []
        for block in chain:
            kept = self._kept.get(block)
            if kept is None or abs(now - kept[1]) >= rules.lifetime_s:
                break
            if rules.longest_s is not None and abs(now - kept[0]) >= rules.longest_s:
                break
            found.append(kept)
        run = len(found)
        got = rules.cached(tokens * run // len(chain))
        self.read[tier] += max(0, got - cached)
        for block, (written, _, owed) in zip(chain, found, strict=False):
            if got and owed:
                self.written[tier] += round(owed)
                owed = 0.0
            self._kept.put(block, (written, now, owed))
        for block in chain[run:]:
            self._kept.put(block, (now, now, each))

    def saved(self, prices: Prices) -> Decimal:
        total = Decimal(0)
        for tier, read in self.read.items():
            price, rates = prices.of(tier[0]), prices.rates(tier)
            if price is None or rates is None:
                continue
            factor = self.rules.write_factor
            write = rates.cache_write if factor is None else rates.fresh_input * factor
            total += read * (rates.fresh_input - rates.cached_input) / MTOK
            if self.rules.charged:
                total -= self.written[tier] * (write - rates.fresh_input) / MTOK
        return total


class Prefixes:
    """The input that repeats the beginning of an earlier call to the same model."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._caches = {name: tuple(_Cache(provider.RULES[rule]) for rule in rules) for name, rules in _RULES.items()}
        self._ruleless: Counter[str] = Counter()
        self._calls = self._timed = self._tokens = self._shared = self._input = self._cached = 0
        self._before: Recent[bytes, bool] = Recent(_BEFORE)

    def take(self, one: Seen) -> None:
        """The next call. Files may run forward or back in time; calls must stand near their neighbours in it."""
        call, chain = one.call, one.chain
        if call.usage is None:
            return
        self._input += call.usage.input_tokens
        self._cached += call.usage.cached_tokens
        if not chain:
            return
        self._calls += 1
        run = next((place for place, block in enumerate(chain) if block not in self._before), len(chain))
        for block in chain:
            self._before.put(block, True)
        self._tokens += call.usage.input_tokens
        self._shared += call.usage.input_tokens * run // len(chain)
        price = self._prices.of(call.model)
        if price is None or one.tier is None:
            return
        caches = self._caches.get(price.provider)
        if caches is None:
            self._ruleless[price.provider] += 1
        elif call.at is not None:
            self._timed += 1
            for cache in caches:
                cache.take(one.tier, chain, call.at, call.usage.input_tokens, call.usage.cached_tokens)

    def advice(self, prices: Prices, bill: Cost) -> Advice:  # noqa: ARG002 - a share of the bill is not needed
        """From what the provider's short lifetime would save to what its long one would."""
        facts = []
        if self._input:
            facts.append(Fact("input tokens that came from a cache already", f"{100 * self._cached / self._input:.1f} %"))
        if not self._calls:
            return Advice(_PREFIX, needs=(PROMPTS,), facts=tuple(facts))
        share = f"{100 * self._shared / max(1, self._tokens):.1f} %"
        facts.insert(0, Fact("input tokens that begin as an earlier prompt did", share))
        facts += [Fact(f"calls to {name}, whose rules are not known", f"{n:,}") for name, n in self._ruleless.most_common(3)]
        forgotten = max(cache.forgotten for caches in self._caches.values() for cache in caches)
        if forgotten:
            facts.append(Fact("blocks forgotten to save memory, so that the saving is a lower bound", f"{forgotten:,}"))
        if not self._timed:
            return Advice(_PREFIX, needs=(_RULES_AND_TIME,), facts=tuple(facts))
        ends = [sum((caches[at].saved(prices) for caches in self._caches.values()), Decimal(0)) for at in (0, 1)]
        low, high = (Cost(fresh_input=max(Decimal(0), end)) for end in sorted(ends))
        return Advice(_PREFIX, low, high, facts=tuple(facts))
