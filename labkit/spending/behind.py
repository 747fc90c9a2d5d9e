"""The requests behind a part of a changed bill: which were longer, dearer, tried again, or not found in a cache.

Each request of the later period is held against the mean of the earlier one in its segment: its excess is what it cost more
than if it had been like that in this one factor, where all other factors are the mean of the two periods. It is an estimate
to sort by: over all requests it adds up to about the part, not to the cent, since a part also has its share of what several
factors did together. For the number of requests and where they went, a request's excess is what it cost, less than 0 where
it was in the earlier period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.request import InvalidValue
from labkit.spending.factors import VALUES, Counts, inner
from labkit.spending.money import added
from labkit.spending.parts import Values, exact_values
from labkit.spending.segments import segments
from labkit.spending.slices import DIMENSIONS, Slice
from labkit.spending.tallies import tallies

if TYPE_CHECKING:
    import pandas as pd

_ARRIVED = ("volume", "mix")
_WHO = ("organisation", "request")
Compared = Mapping[tuple[Any, ...], tuple[Counts, Counts]]


def requests_behind(
    slices: tuple[Slice, Slice],
    by: tuple[str, ...],
    compared: Compared,
    totals: tuple[int, int],
    parts: Mapping[tuple[Any, ...], Fraction],
    factor: str,
    limit: int,
) -> pd.DataFrame:
    """The `limit` requests with the largest excess, or the smallest where the part is below 0; see `Explanation.behind`.

    `parts` has the part of `factor` for each segment. Where it is 0, so is the excess: the segment is in one period only, or
    its mean did not move.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidValue(f"limit is {limit!r}; ask for a whole number of requests, from 1")
    with extra("analysis"):
        import numpy as np
        import pandas as pd

    who = tuple(name for name in _WHO if name not in by)
    names = (*by, *who)
    falls = added(list(parts.values()), 2) < 0
    rows: list[tuple[Any, ...]] = []
    for period, part in (("before", slices[0]), ("after", slices[1])):
        if period == "before" and factor not in _ARRIVED:
            continue
        found = tallies(part, by, {name: DIMENSIONS[name] for name in who})
        keys = list(zip(*(found.keys[name].tolist() for name in found.keys), strict=True))
        if factor in _ARRIVED:
            amounts = (1 if period == "after" else -1) * found.cost
        else:
            segment_of = [key[: len(by)] for key in keys]
            moved = np.array([parts[segment] != 0 for segment in segment_of], bool)
            amounts = np.where(moved, excess(factor, found.counts, *_references(segment_of, compared, totals)), 0.0)
        first = np.argsort(amounts if falls else -amounts, kind="stable")[:limit]
        rows += [(period, keys[index], float(amounts[index])) for index in first]
    rows.sort(key=lambda row: row[2] if falls else -row[2])
    exact = {
        (period, *segment.key): segment
        for period, part in zip(("before", "after"), slices, strict=True)
        if (wanted := sorted({key[names.index("request")] for of, key, _ in rows[:limit] if of == period}))
        for segment in segments(_only(part, wanted), names)
    }
    table = []
    for period, key, amount in rows[:limit]:
        of = exact[period, *key]
        estimate = Decimal(f"{amount:.6f}") + 0  # which makes of -0.000000 just 0
        table.append((period, *key, of.attempts, of.tokens.input_tokens, of.tokens.output_tokens, of.total, estimate))
    return pd.DataFrame(table, columns=["period", *names, "attempts", "input_tokens", "output_tokens", "cost", "excess"])


def _only(part: Slice, requests: Sequence[str]) -> Slice:
    """The slice with these requests only, and those that it has anyway."""
    return replace(part, only={**part.only, "request": requests})


def excess(factor: str, each: Counts, old: Values, mean: Values) -> Any:
    """What each request cost more for `factor`, none of "volume" and "mix"; arrays with one element a request.

    `old` has the factors of the earlier period in the request's segment, and `mean` those between the two periods.
    """
    _, _, (attempts,), (known,), (read,), (visible, reasoning), (served, cached, written), prices, (split, other) = old
    fresh_price, cached_price, write_price, visible_price, reasoning_price = mean[7]
    (mean_known,), (mean_served, mean_cached, mean_written) = mean[3], mean[6]
    # An attempt that no cache answers.
    computed = inner([mean[4], mean[5], (0, mean_cached, mean_written), mean[7], mean[8]])
    unsplit = each.priced - each.split
    if factor == "retries":
        return (each.attempts - attempts * each.requests) * mean_known * (1 - mean_served) * computed
    if factor == "unpriced":
        return (each.priced - known * (each.attempts - each.served)) * computed
    if factor == "tokens in":
        of_input = (1 - mean_cached - mean_written) * fresh_price + mean_cached * cached_price + mean_written * write_price
        return (each.read - read * each.split) * of_input
    if factor == "tokens out":
        more_visible, more_reasoning = each.visible - visible * each.split, each.reasoning - reasoning * each.split
        return more_visible * visible_price + more_reasoning * reasoning_price
    if factor == "cache hits":
        from_cache = (each.cached - cached * each.read) * (cached_price - fresh_price)
        to_cache = (each.written - written * each.read) * (write_price - fresh_price)
        return from_cache + to_cache - (each.served - served * each.attempts) * mean_known * computed
    if factor == "price":
        fresh = each.read - each.cached - each.written
        tokens = (fresh, each.cached, each.written, each.visible, each.reasoning)
        return sum(cost - price * number for cost, price, number in zip(each.costs, prices, tokens, strict=True))
    of_split = inner([mean[4], mean[5], (0, mean_cached, mean_written), mean[7], (1, 0)])
    more_unsplit = unsplit - (1 - split) * each.priced
    return more_unsplit * (mean[8][1] - of_split) + each.unsplit_cost - other * unsplit


def _references(keys: Sequence[tuple[Any, ...]], compared: Compared, totals: tuple[int, int]) -> tuple[Values, Values]:
    """The factors of the earlier period, and those between both, for the segment of each key, in arrays."""
    import numpy as np

    codes: dict[tuple[Any, ...], int] = {}
    place = np.array([codes.setdefault(key, len(codes)) for key in keys], int)
    both = [exact_values(*compared[key], totals) for key in codes]

    def arrays(side: int) -> Values:
        return [
            tuple(np.array([float(values[side][factor][kind]) for values in both])[place] for kind in range(width))
            for factor, width in enumerate(VALUES)
        ]

    old, new = arrays(0), arrays(1)
    return old, [tuple((a + b) / 2 for a, b in zip(was, now, strict=True)) for was, now in zip(old, new, strict=True)]
