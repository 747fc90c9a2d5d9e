"""When it is faster to keep a prefix's keys and values elsewhere and fetch them than to compute them again.

Fetching n tokens takes t₀ + n·b/L: the link's latency, b bytes per token, L bytes per second. Computing them again takes the
time that they add to the step that computes the request's last token, which is never cached. By the latency model's roofs
(see `labkit.latency.model`) this is about n·linear_s + pair_s·n²/2 for long prefixes. A fetch grows with n and a computation
with n², so there is one length from which on fetching is faster. While arithmetic is the limit and t₀ is small, it is about

    n* ≈ 2·(b/L − linear_s) / pair_s,    and every length where b/L < linear_s.

The vLLM paper compares swapping with recomputation in this way (Kwon et al., arXiv 2309.06180, sections 4.5 and 7.3), and so
do Meng et al. ("Understanding bottlenecks for efficiently serving LLM inference with KV offloading", arXiv 2601.19910).
Here nothing overlaps with the fetch, and the link is idle before it. The effects of both have to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from labkit.kvcache.size import KVSize
from labkit.latency import GIGA, LatencyModel, StepWork
from labkit.request import InvalidValue

_LONGEST = 1 << 27  # tokens: a hundred times the longest context window of any model


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Recomputing compared with fetching a prefix of `prefix` tokens; times are in seconds.

    `tokens`: the length from which on every prefix is fetched at least as fast as it is computed; None where there is none.
    `link_gbs`: the bandwidth of the link, in GB/s (10⁹ bytes), from which on this prefix is fetched at least as fast;
    infinite where the link's latency alone takes at least as long as computing it.
    """

    prefix: int
    fetched_bytes: int
    recompute_s: float
    fetch_s: float
    tokens: int | None
    link_gbs: float

    @property
    def faster(self) -> Literal["fetch", "recompute"]:
        """The faster way to get this prefix."""
        return "fetch" if self.fetch_s <= self.recompute_s else "recompute"


def recompute_seconds(latency: LatencyModel, prefix: int) -> float:
    """Seconds that computing a prefix of `prefix` tokens adds to the step that computes the one token after it.

    This assumes full attention in every layer and no other sequence in the step. The step reads the weights in any case.
    Raises `InvalidValue` for a `prefix` below 1.
    """
    if prefix < 1:
        raise InvalidValue(f"prefix is {prefix} tokens; use 1 or more")
    return latency.step_seconds(StepWork.of([(prefix + 1, 0)])) - latency.step_seconds(StepWork.of([(1, prefix)]))


def offload_break_even(
    size: KVSize, latency: LatencyModel, prefix: int, link_gbs: float, *, link_latency_s: float = 0.0
) -> BreakEven:
    """Whether to recompute a prefix of `prefix` tokens or to fetch it over a link of `link_gbs` GB/s (10⁹ bytes).

    By their specifications, PCIe 4.0 ×16 has 32 GB/s and PCIe 5.0 ×16 has 64 GB/s in each direction; in practice less is
    reached. `link_latency_s` is the time from the request to the first byte. Raises `InvalidValue` for numbers out of range.
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
    """The prefix from which on `fetching_wins`, searched from the longest down; None where it does not win there.

    The time to recompute minus the time to fetch is convex in the length and starts at 0 or below, so it crosses 0 once. In
    a mixture of experts it may also cross earlier, because each of the first tokens reads further experts.
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
