"""Prompt caching as API providers sell it: which input tokens of a stream of calls are read from a cache, and which written.

A provider keeps a prefix for a lifetime. A call that begins with that prefix reads it at a discount. With some providers,
the call that writes it pays a premium. The result of a stream of calls is a stream of `Usage`, which `labkit.cost` prices
like any other. The worth of a cache is the difference to the price of the same calls without one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from labkit.cost import Price, Rates
from labkit.request import InvalidValue, Usage


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What a provider caches, and for how long.

    `minimum`: tokens below which no prefix is cached. `increment`: hits are counted in steps of this many tokens. `at_ends`:
    a prefix can be read only up to a place that a call marked as its end (Anthropic's breakpoints), not up to any step.
    `lifetime_s`: how long a prefix stays after its last use. `longest_s`: how long it stays at most after it was written;
    None for no limit. `charged`: whether writing is billed as cache writes. `write_factor`: the price of a written token in
    input tokens; None for the price list's own. `source` and `as_of`: where and when the provider published this. Raises
    `InvalidValue` for numbers out of range.
    """

    name: str
    minimum: int
    lifetime_s: float
    source: str
    as_of: str
    increment: int = 1
    longest_s: float | None = None
    charged: bool = False
    at_ends: bool = False
    write_factor: Decimal | None = None

    def __post_init__(self) -> None:
        if self.minimum < 0 or self.increment < 1 or not self.lifetime_s > 0:
            raise InvalidValue(
                f"{self.name}: minimum {self.minimum}, increment {self.increment}, lifetime {self.lifetime_s} s; use tokens "
                "from 0, an increment from 1 and a lifetime above 0"
            )

    def cached(self, tokens: int) -> int:
        """How many tokens of a prefix of `tokens` tokens can be read from the cache."""
        return 0 if tokens < self.minimum else tokens - tokens % self.increment

    def price(self, price: Price) -> Price:
        """`price` with the price of cache writes that these rules charge."""
        if self.write_factor is None:
            return price
        factor = self.write_factor

        def changed(rates: Rates) -> Rates:
            return replace(rates, cache_write=rates.fresh_input * factor)

        return replace(
            price,
            rates=changed(price.rates),
            tiers=tuple((start, changed(rates)) for start, rates in price.tiers),
            batch=None if price.batch is None else changed(price.batch),
            batch_tiers=tuple((start, changed(rates)) for start, rates in price.batch_tiers),
            day=tuple((start, self.price(part)) for start, part in price.day),
        )


_ANTHROPIC = "Anthropic, Prompt caching (platform.claude.com/docs, build-with-claude/prompt-caching)"
_OPENAI = "OpenAI, Prompt caching (developers.openai.com/docs/guides/prompt-caching)"
# Google and DeepSeek publish no lifetime for their implicit and disk caches, so they cannot be predicted here.
RULES: Mapping[str, CacheRules] = {
    rules.name: rules
    for rules in (
        # The smallest prefix depends on the model: 1,024 to 4,096 tokens. This is the value of Sonnet 4.5.
        CacheRules("anthropic, 5 minutes", 1024, 300, _ANTHROPIC, "2026-03", charged=True, at_ends=True),
        CacheRules(
            "anthropic, 1 hour", 1024, 3600, _ANTHROPIC, "2026-03", charged=True, at_ends=True, write_factor=Decimal(2)
        ),
        # "Cached prefixes generally remain active for 5 to 10 minutes of inactivity, up to a maximum of one hour."
        CacheRules("openai, in memory", 1024, 300, _OPENAI, "2026-03", increment=128, longest_s=3600),
        CacheRules("openai, 24 hours", 1024, 24 * 3600, _OPENAI, "2026-03", increment=128, longest_s=24 * 3600),
    )
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call to a provider.

    `at`: when, in seconds. `input_tokens`: all its input tokens. `prefix_tokens`: how many of them are its stable prefix.
    `prefix`: which prefix that is. `output_tokens`: its output tokens. Calls with the same `prefix` share their first
    tokens, as far as the shorter prefix goes: a conversation is one prefix that grows from turn to turn. Raises
    `InvalidValue` for a prefix longer than the input.
    """

    at: float
    input_tokens: int
    prefix_tokens: int
    prefix: Hashable = ""
    output_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.prefix_tokens <= self.input_tokens:
            raise InvalidValue(
                f"a call of {self.input_tokens} input tokens cannot have a prefix of {self.prefix_tokens} of them"
            )


def serve(calls: Iterable[Call], rules: CacheRules) -> list[Usage]:
    """The usage that each call is billed for under `rules`. Raises `InvalidValue` if times go back.

    A call reads the part of its prefix that earlier calls wrote and that is still kept, and writes the rest. Two
    simplifications make this cheaper than a real provider. First, a prefix counts as kept from the moment of the call that
    wrote it. At a real provider, calls miss until the answer to that call begins, so a burst at the start costs more.
    Second, Anthropic looks for a written prefix only in the last 20 content blocks, so a turn that adds more blocks than
    that costs more.
    """
    kept: dict[Hashable, list[_Stretch]] = {}
    usages: list[Usage] = []
    before = float("-inf")
    for call in calls:
        if call.at < before:
            raise InvalidValue(f"a call at {call.at} s comes after one at {before} s; sort the calls by time")
        before = call.at
        tokens = rules.cached(call.prefix_tokens)
        if not tokens:
            usages.append(Usage(call.input_tokens, call.output_tokens))
            continue
        alive = [stretch for stretch in kept.get(call.prefix, []) if stretch.alive(call.at, rules)]
        kept[call.prefix], read = (_at_ends if rules.at_ends else _at_any_step)(alive, tokens, call.at)
        read = rules.cached(read)
        written = tokens - read if rules.charged else 0
        usages.append(Usage(call.input_tokens, call.output_tokens, cached_tokens=read, cache_write_tokens=written))
    return usages


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Tokens of a prefix that were written together, from `start` to `end` (0 is the prefix's beginning).

    `written` and `used`: when they were written and last used, in seconds.
    """

    start: int
    end: int
    written: float
    used: float

    def alive(self, now: float, rules: CacheRules) -> bool:
        return now - self.used < rules.lifetime_s and (rules.longest_s is None or now - self.written < rules.longest_s)


def _at_ends(alive: list[_Stretch], tokens: int, now: float) -> tuple[list[_Stretch], int]:
    """What is kept after a call, and how many tokens it reads: the longest kept prefix whose end is not beyond `tokens`."""
    read = max((stretch.end for stretch in alive if stretch.end <= tokens), default=0)
    after = [replace(stretch, used=now) if stretch.end == read else stretch for stretch in alive]
    return (after if read == tokens else [*after, _Stretch(0, tokens, now, now)]), read


def _at_any_step(alive: list[_Stretch], tokens: int, now: float) -> tuple[list[_Stretch], int]:
    """The same if every step is kept by itself: the call reads up to `tokens`, or up to the first step that is gone."""
    read = 0
    after = []
    for stretch in alive:  # in the order of their places
        if stretch.start == read < tokens:
            read = min(stretch.end, tokens)
            after.append(replace(stretch, end=read, used=now))
    if read < tokens:
        after.append(_Stretch(read, tokens, now, now))
    after += [replace(stretch, start=max(stretch.start, tokens)) for stretch in alive if stretch.end > tokens]
    return after, read


def reads_to_pay_for_a_write(price: Price, rules: CacheRules) -> Decimal | None:
    """How many reads within its lifetime a written prefix needs, so that caching costs no more than not caching.

    Solves w + n·r = (1 + n)·i for n, where w, r and i are the prices of a written, a read and a plain input token:

        n = (w − i) / (i − r)

    0 if writing costs nothing extra, None if reading saves nothing.
    """
    rates = rules.price(price).rates
    premium = rates.cache_write - rates.fresh_input if rules.charged else Decimal(0)
    if premium <= 0:
        return Decimal(0)
    saved = rates.fresh_input - rates.cached_input
    return None if saved <= 0 else premium / saved


def hit_probability(calls_per_s: float, rules: CacheRules) -> float:
    """Share of Poisson calls on one prefix that find it kept, if each use renews the lifetime: 1 − exp(−λ·L).

    This is the probability that the next call comes within L of this one. `longest_s` is left out: where calls are frequent
    enough to reach it, one more write in that time changes little. Raises `InvalidValue` for a rate below 0.
    """
    if not calls_per_s >= 0:
        raise InvalidValue(f"{calls_per_s} calls a second is no rate; use a number from 0")
    return 1 - math.exp(-calls_per_s * rules.lifetime_s)
