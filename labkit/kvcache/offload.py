"""When it pays to keep a prefix's keys and values elsewhere, and fetch them instead of computing them again.

Fetching n tokens takes t₀ + n·b/L: the link's latency, b bytes per token, L bytes per second. Computing them again takes
what they add to the step that computes the request's last token, which is never cached: by the latency model's roofs (see
`labkit.latency.model`), for long prefixes about n·linear_s + pair_s·n²/2. A fetch grows with n and a computation with n², so
there is one length from which fetching is faster: while arithmetic is the limit and t₀ is small, about

    n* ≈ 2·(b/L − linear_s) / pair_s,    and every length where b/L < linear_s.

The comparison is the vLLM paper's between swapping and recomputation (Kwon et al., arXiv 2309.06180, sections 4.5 and 7.3),
and that of Meng et al. ("Understanding bottlenecks for efficiently serving LLM inference with KV offloading", arXiv
2601.19910). Nothing overlaps here, and the link is idle before: both are for measuring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from labkit.kvcache.size import KVSize
from labkit.latency import GIGA, LatencyModel, StepWork
from labkit.request import InvalidValue

_LONGEST = 1 << 27  # tokens: a hundred times the longest context window there is


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Recomputing against fetching a prefix of `prefix` tokens, times in seconds.

    `tokens`: the prefix from which on each is fetched at least as fast as it is computed, None where none is.
    `link_gbs`: the link's bandwidth, in GB/s (10⁹ bytes), from which this prefix is fetched at least as fast; infinite where
    the link's latency alone takes longer than computing it.
    """

    prefix: int
    fetched_bytes: int
    recompute_s: float
    fetch_s: float
    tokens: int | None
    link_gbs: float

    @property
    def faster(self) -> Literal["fetch", "recompute"]:
        """What to do with this prefix."""
        return "fetch" if self.fetch_s <= self.recompute_s else "recompute"


def recompute_seconds(latency: LatencyModel, prefix: int) -> float:
    """What a prefix of `prefix` tokens adds to the step that computes the one token after it, in seconds.

    It counts full attention in every layer and no other sequence in the step: an idle engine that reads its weights anyway.
    """
    if prefix < 1:
        raise InvalidValue(f"prefix is {prefix} tokens; use 1 or more")
    return latency.step_seconds(StepWork.of([(prefix + 1, 0)])) - latency.step_seconds(StepWork.of([(1, prefix)]))


def offload_break_even(
    size: KVSize, latency: LatencyModel, prefix: int, link_gbs: float, *, link_latency_s: float = 0.0
) -> BreakEven:
    """Whether to recompute a prefix of `prefix` tokens or to fetch it over a link of `link_gbs` GB/s (10⁹ bytes).

    PCIe 4.0 ×16 is 32 GB/s by its specification and PCIe 5.0 ×16 64 GB/s, each direction; less is reached.
    `link_latency_s`: from the request to the first byte. Raises `InvalidValue` for numbers that cannot be.
    """
    if not (link_gbs > 0 and math.isfinite(link_gbs)):
        raise InvalidValue(f"link_gbs is {link_gbs}; a link has some GB/s, above 0")
    if not (link_latency_s >= 0 and math.isfinite(link_latency_s)):
        raise InvalidValue(f"link_latency_s is {link_latency_s}; use seconds from 0")

    def fetch_s(tokens: int) -> float:
        return link_latency_s + size.sequence_bytes(tokens) / (GIGA * link_gbs)

    recompute_s = recompute_seconds(latency, prefix)
    fetched = size.sequence_bytes(prefix)
    spare_s = recompute_s - link_latency_s
    return BreakEven(
        prefix=prefix,
        fetched_bytes=fetched,
        recompute_s=recompute_s,
        fetch_s=fetch_s(prefix),
        tokens=_crossing(lambda n: recompute_seconds(latency, n) >= fetch_s(n)),
        link_gbs=fetched / spare_s / GIGA if spare_s > 0 else math.inf,
    )


def _crossing(fetching_wins: Callable[[int], bool]) -> int | None:
    """The prefix from which on `fetching_wins`, sought from the longest down.

    Recomputing less fetching is convex in the length and starts at 0 or below, so it crosses 0 once; only the first tokens
    of a mixture of experts, which bring in one expert after another, may make it cross before as well.
    """
    if not fetching_wins(_LONGEST):
        return None
    high = _LONGEST
    while high > 1 and fetching_wins(high // 2):
        high //= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fetching_wins(middle) else (middle, high)
    return high
