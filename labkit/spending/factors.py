"""What a bill is the product of: eight factors for each segment, and one for what no price list explains.

    cost = requests · share that comes to the segment · attempts each · share with a known cost
         · (1 − share that a cache answered) · (tokens in · their mean price + tokens out · their mean price)

The same formulas serve exact fractions (the bill) and arrays (its intervals); only the division differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FACTORS = (
    "volume", "mix", "retries", "unpriced", "tokens in", "tokens out", "cache hits", "price", "unsplit",
)  # fmt: skip
"""Why a bill changes.

"volume": how many requests there were. "mix": the share of them that came to each segment. "retries": attempts for each
request. "unpriced": the share of attempts whose cost is known. "tokens in" and "tokens out": tokens of an attempt (reasoning
is out). "cache hits": answers repeated by a cache, and the shares of the input that were read from a provider's cache and
written to it. "price": what a token of each kind cost on average, so that a higher tier is a price, too. "unsplit": attempts
whose cost no given price list explains, and what one of them cost.
"""
OUTER = 4
"""The first so many of `FACTORS` multiply the rest."""
VALUES = (1, 1, 1, 1, 1, 2, 3, 5, 2)
"""How many numbers each of `FACTORS` is."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The sums of one segment in one period: numbers, or arrays of them.

    Requests, attempts, those `served` by a cache, those `priced` (computed, with a known cost), those of them that are
    `split` by kind of token; of these the tokens read, cached, written to a cache, visible and reasoning, and the cost of
    each kind (`costs`, in the order of `TOKEN_KINDS`); and the cost of the rest (`unsplit_cost`).
    """

    requests: Any
    attempts: Any
    served: Any
    priced: Any
    split: Any
    read: Any
    cached: Any
    written: Any
    visible: Any
    reasoning: Any
    costs: tuple[Any, ...]
    unsplit_cost: Any


def factors(counts: Counts, everything: Any, divided: Callable[[Any, Any], Any]) -> list[tuple[Any, ...]]:
    """The value of each of `FACTORS` for a segment, of a period with `everything` requests.

    `divided` says what 0 / 0 is: unknown.
    """
    c = counts
    fresh = c.read - c.cached - c.written
    prices = [
        divided(cost, tokens)
        for cost, tokens in zip(c.costs, (fresh, c.cached, c.written, c.visible, c.reasoning), strict=True)
    ]
    return [
        (everything,),
        (divided(c.requests, everything),),
        (divided(c.attempts, c.requests),),
        (divided(c.priced, c.attempts - c.served),),
        (divided(c.read, c.split),),
        (divided(c.visible, c.split), divided(c.reasoning, c.split)),
        (divided(c.served, c.attempts), divided(c.cached, c.read), divided(c.written, c.read)),
        tuple(prices),
        (divided(c.split, c.priced), divided(c.unsplit_cost, c.priced - c.split)),
    ]


def outer(chosen: Sequence[tuple[Any, ...]]) -> Any:
    """Attempts with a known cost, if no cache answered any."""
    (volume,), (share,), (attempts,), (known,) = chosen
    return volume * share * attempts * known


def inner(chosen: Sequence[tuple[Any, ...]], ones: Sequence[int] = (1, 1, 1, 1, 1)) -> Any:
    """What such an attempt costs, with the caches.

    `ones` says what 1 is for each factor: 1, or the denominator that its numbers share, of which only the numerators are
    given. The result is over the product of `ones`, with those of "cache hits" and "unsplit" twice.
    """
    (read,), (visible, reasoning), (served, cached, written), price, (split, other) = chosen
    fresh_price, cached_price, write_price, visible_price, reasoning_price = price
    one_in, one_out, one_hit, one_price, one_split = ones
    of_input = (one_hit - cached - written) * fresh_price + cached * cached_price + written * write_price
    of_output = visible * visible_price + reasoning * reasoning_price
    of_split = read * one_out * of_input + one_in * one_hit * of_output
    of_other = one_in * one_out * one_hit * one_price * other
    return (one_hit - served) * (split * one_split * of_split + (one_split - split) * of_other)
