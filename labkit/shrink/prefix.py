"""When compression loses money to a prefix cache: closed forms, and the exact windows with a provider's steps and minimum.

Calls share a stable prefix of P tokens, and each has T tokens of its own. A fresh input token costs f, one read from the
cache c, and one whose prefix was not found costs w: the price of a cache write where the provider charges for writing,
else f. The share h of the calls finds the prefix kept. Then a prefix token costs m = h·c + (1 − h)·w on average, and a
call's input costs P·m + T·f. A compressor leaves the share r of what it reads, and costs k. There are three ways:

- *each*: it reads the whole prompt and leaves something else for every question. Nothing is found again, so the input
  costs r·(P·w + T·f) + k: with a prefix at a tenth of the price, more than nine tenths of it must go before that pays.
- *behind*: it reads what is behind the prefix: P·m + r·T·f + k.
- *once*: it reads the prefix once for all calls: r·P·m + T·f + k/n, for n calls.

The prices are the providers' (`labkit.cost`), the rules of their caches `labkit.caches.provider.RULES`, those of vLLM's
blocks `blocks(block_size)`. A provider counts the prefix in steps and from a minimum on. Below it nothing is cached, so a
prefix that is made shorter can cost more: the reason for the windows. `tests/shrink/test_prefix.py` holds all of it against
`provider.serve` on streams of calls, and against the cached tokens that live vLLM reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, get_args

from labkit.caches import provider
from labkit.cost import MTOK, Price, Rates
from labkit.request import InvalidValue

Mode = Literal["each", "behind", "once"]
_ENGINE = "vLLM, Automatic Prefix Caching (docs.vllm.ai/en/latest/design/prefix_caching)"


def blocks(block_size: int) -> provider.CacheRules:
    """The rules of vLLM's prefix cache: whole blocks of `block_size` tokens, kept until the memory is needed, no charge.

    Memory that runs out is not in these rules: give it as a hit rate, or ask `labkit.caches.PrefixCache`.
    """
    return provider.CacheRules(
        f"vLLM, blocks of {block_size}", block_size, math.inf, _ENGINE, "2026-11", increment=block_size
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """Calls that share a stable prefix, and what they are billed by.

    `prefix`: tokens that are the same in all. `tail`: tokens of a call's own. `hits`: the share of the calls that find the
    prefix kept (`provider.hit_probability`, or measured). Raises `InvalidValue` for counts below 0 and no share.
    """

    prefix: int
    tail: int
    price: Price
    rules: provider.CacheRules
    hits: float = 1.0

    def __post_init__(self) -> None:
        if self.prefix < 0 or self.tail < 0 or not self.prefix + self.tail:
            raise InvalidValue(f"a prompt of {self.prefix} and {self.tail} tokens; give counts from 0, not both of them 0")
        if not 0 <= self.hits <= 1:
            raise InvalidValue(f"hits is {self.hits}; give the share of the calls that find the prefix, from 0 to 1")

    @property
    def rates(self) -> Rates:
        """The rates at the length of a call, with the price of writing that the rules charge."""
        return self.rules.price(self.price).rates_for(self.prefix + self.tail)

    @property
    def missed(self) -> Decimal:
        """w: USD per million tokens of a prefix that was not found."""
        return self.rates.cache_write if self.rules.charged else self.rates.fresh_input

    @property
    def mean(self) -> Decimal:
        """m: USD per million tokens of the prefix, on average over hits and misses."""
        hits = Decimal(repr(self.hits))
        return hits * self.rates.cached_input + (1 - hits) * self.missed

    @property
    def input_usd(self) -> Decimal:
        """USD for the input of one call on average, with the rules' steps and minimum."""
        found = self.rules.cached(self.prefix)
        return (found * self.mean + (self.prefix - found + self.tail) * self.rates.fresh_input) / MTOK


@dataclass(frozen=True, slots=True)
class Own:
    """What the compressor itself costs: `usd` each time it runs, and `usd_per_mtok` per million tokens that it reads.

    Its time on a machine of yours is money, too: seconds × USD an hour / 3600. What is shortened once is shared by `calls`.
    """

    usd: Decimal = Decimal(0)
    usd_per_mtok: Decimal = Decimal(0)
    calls: int = 1

    def __post_init__(self) -> None:
        if min(self.usd, self.usd_per_mtok) < 0 or self.calls < 1:
            raise InvalidValue(f"{self} costs less than nothing, or is for no call; give money from 0 and calls from 1")

    def of(self, read: int) -> Decimal:
        """USD for each call, for a compressor that reads `read` tokens."""
        return (self.usd + read * self.usd_per_mtok / MTOK) / self.calls


FREE = Own()


@dataclass(frozen=True, slots=True)
class PrefixBreakEven:
    """What a call's input costs without and with the compressor, in USD, and where the two are equal.

    `hits`: the hit rate from which on (`each`, `once`) it loses; None where no hit rate from 0 to 1 turns the sign.
    `left`: the largest share of what it reads that it may leave (closed form, without steps and minimum; below 0: never).
    `length`: the tokens of a prompt from which on it pays, at the same share of prefix (closed form); None: at no length.
    """

    before: Decimal
    after: Decimal
    hits: float | None
    left: float
    length: float | None

    @property
    def saved(self) -> Decimal:
        """USD that a call saves; below 0 where compression costs money."""
        return self.before - self.after


def compressed(stream: Stream, way: Mode, left: float) -> Stream:
    """`stream` as it is sent after compression that leaves the share `left` of what it reads, in whole tokens.

    Raises `InvalidValue` for another way, and for a share that is not from 0 to 1.
    """
    if way not in get_args(Mode):
        raise InvalidValue(f"way is {way!r}; use one of {', '.join(get_args(Mode))}")
    if not 0 <= left <= 1:
        raise InvalidValue(f"left is {left}; give the share of the tokens that is left, from 0 to 1")
    return _with(stream, way, round(left * _read(stream, way)))


def break_even(stream: Stream, way: Mode, left: float, own: Own = FREE) -> PrefixBreakEven:
    """When compression that leaves the share `left` (0 to 1) of what it reads pays on this stream, and when it loses.

    Closed forms, with s = P/(P+T), the compressor's own cost k = b + a·(tokens read), and prices as in this module's head:

        each:    r* = (s·m + (1−s)·f − a − b/(P+T)) / (s·w + (1−s)·f)
        behind:  r* = 1 − (a + b/T) / f
        once:    r* = 1 − (a + b/P) / (n·m)

    The break-even length follows from g, what a token of the prompt saves: b / g. The hit rate is exact: both bills are
    straight lines in it. Raises `InvalidValue` as `compressed` does.
    """
    read = _read(stream, way)
    sent = compressed(stream, way, left)
    cost = own.of(read)

    def gap(hits: float) -> Decimal:
        before, after = replace(stream, hits=hits), sent if way == "each" else replace(sent, hits=hits)
        return before.input_usd - after.input_usd - cost

    at_none, at_all = gap(0.0), gap(1.0)
    crossing = at_none / (at_none - at_all) if at_none != at_all else None
    fixed, by_token = own.usd / own.calls * MTOK, own.usd_per_mtok / own.calls
    whole, missed, mean, fresh = stream.prefix + stream.tail, stream.missed, stream.mean, stream.rates.fresh_input
    share = Decimal(stream.prefix) / whole
    kept = Decimal(repr(left))
    if way == "each":
        full, gone = share * mean + (1 - share) * fresh, share * missed + (1 - share) * fresh
        most, gain = (full - by_token - fixed / whole) / gone, full - kept * gone - by_token
    else:
        part, worth = (share, mean) if way == "once" else (1 - share, fresh)
        most = 1 - (by_token + fixed / read) / worth if read and worth else Decimal(-1)
        gain = part * ((1 - kept) * worth - by_token)
    return PrefixBreakEven(
        stream.input_usd,
        sent.input_usd + cost,
        float(crossing) if crossing is not None and 0 <= crossing <= 1 else None,
        float(most),
        float(fixed / gain) if gain > 0 else None,
    )


def saved_between(
    stream: Stream, way: Mode, left: float, hits: tuple[float, float], own: Own = FREE
) -> tuple[Decimal, Decimal]:
    """USD that a call saves, (least, most), where the hit rate is only known to lie between `hits`.

    Both bills are straight lines in the hit rate, so the ends decide.
    """
    ends = [break_even(replace(stream, hits=end), way, left, own).saved for end in hits]
    return min(ends), max(ends)


def pays(stream: Stream, way: Mode, own: Own = FREE) -> tuple[tuple[int, int], ...]:
    """How many tokens may be left of what the compressor reads for it to save money, as (least, most) windows; exact."""
    before = stream.input_usd - own.of(_read(stream, way))
    return windows(range(_read(stream, way) + 1), lambda tokens: _with(stream, way, tokens).input_usd < before)


def windows(values: Iterable[int], holds: Callable[[int], bool]) -> tuple[tuple[int, int], ...]:
    """The stretches of `values` (ascending) for which `holds`, each as its first and its last value."""
    found: list[tuple[int, int]] = []
    inside = False
    for value in values:
        if not holds(value):
            inside = False
        elif inside:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
            inside = True
    return tuple(found)


def _read(stream: Stream, way: Mode) -> int:
    return {"each": stream.prefix + stream.tail, "behind": stream.tail, "once": stream.prefix}.get(way, 0)


def _with(stream: Stream, way: Mode, left: int) -> Stream:
    """The stream with `left` tokens of what is read; at least one token is sent."""
    if way == "behind":
        return replace(stream, tail=max(left, 0 if stream.prefix else 1))
    if way == "once":
        return replace(stream, prefix=max(left, 0 if stream.tail else 1))
    prefix = round(left * stream.prefix / (stream.prefix + stream.tail))
    return replace(stream, prefix=prefix, tail=max(left - prefix, 0 if prefix else 1), hits=0.0)
