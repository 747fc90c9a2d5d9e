"""Why did the bill change? The difference between two periods or versions, in parts that add up to it to the last cent.

Each segment's cost is a product of factors (`labkit.spending.factors`). Were they changed one after another, what each one
does would depend on the order: a price that doubles costs more after the requests have doubled. So each part is the mean
over all 9! orders, the Shapley value (`labkit.spending.shapley`), which prefers no order.
Nothing is rounded before the parts are printed, and a factor that did not change has a part of exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.request import TOKEN_KINDS, InvalidValue
from labkit.spending.behind import requests_behind
from labkit.spending.factors import FACTORS, Counts
from labkit.spending.intervals import Cluster, Intervals, draw
from labkit.spending.money import added, apportion, rounded
from labkit.spending.parts import exact_parts
from labkit.spending.segments import Segment, requests_in, segments
from labkit.spending.slices import Slice

if TYPE_CHECKING:
    import pandas as pd

_WORDS = {
    "volume": ("there were more requests", "there were fewer requests"),
    "mix": ("more requests went to what costs more", "more requests went to what costs less"),
    "retries": ("requests took more attempts", "requests took fewer attempts"),
    "unpriced": ("more attempts have a known cost", "fewer attempts have a known cost"),
    "tokens in": ("prompts were longer", "prompts were shorter"),
    "tokens out": ("answers were longer", "answers were shorter"),
    "cache hits": ("caches saved less", "caches saved more"),
    "price": ("tokens cost more", "tokens cost less"),
    "unsplit": (
        "attempts that no given price list explains cost more",
        "attempts that no given price list explains cost less",
    ),
}


@dataclass(frozen=True)
class Explanation:
    """Why a bill changed, from `explain_change`.

    `before` and `after` are the two bills, exact, in `currency`. `exact` has the part of each of `FACTORS` for each segment,
    by its values of the dimensions `by`. `requests` counts those of each bill, and `unpriced` the attempts whose cost nobody
    knows: with any, the bill is a lower bound.
    """

    by: tuple[str, ...]
    currency: str
    before: Decimal
    after: Decimal
    requests: tuple[int, int]
    unpriced: tuple[int, int]
    exact: Mapping[tuple[Any, ...], tuple[Fraction, ...]] = field(repr=False)
    slices: tuple[Slice, Slice] = field(repr=False)
    counts: Mapping[tuple[Any, ...], tuple[Counts, Counts]] = field(repr=False)

    def parts(self, places: int = 2) -> dict[str, Decimal]:
        """The part of each of `FACTORS`, with `places` decimals.

        They add up to the difference of the two bills as these are printed: the largest remainders are rounded up.
        """
        target = rounded(self.after, places) - rounded(self.before, places)
        sums = [added([parts[index] for parts in self.exact.values()], places) for index in range(len(FACTORS))]
        return dict(zip(FACTORS, apportion(target, sums, places), strict=True))

    def by_segment(self, places: int = 2) -> pd.DataFrame:
        """The parts of each segment, one row each with a column for each of `FACTORS` and their `difference`.

        Each column adds up to the part that `parts` prints. The rows with the largest differences come first.
        """
        with extra("analysis"):
            import pandas as pd

        printed = self.parts(places)
        table = pd.DataFrame(list(self.exact), columns=list(self.by), dtype=object)
        for index, name in enumerate(FACTORS):
            amounts = apportion(printed[name], [parts[index] for parts in self.exact.values()], places)
            table[name] = pd.Series(list(amounts), dtype=object)
        rows = table[list(FACTORS)].to_numpy().tolist()
        table["difference"] = pd.Series([sum(row, Decimal(0)) for row in rows], dtype=object)
        order = sorted(range(len(table)), key=lambda row: -abs(table["difference"][row]))
        return table.iloc[order].reset_index(drop=True)

    def intervals(
        self, cluster: Cluster = "workflow", *, draws: int = 500, level: float = 0.95, seed: int = 0, places: int = 2
    ) -> Intervals:
        """Where the difference and its parts would lie, had other conversations of the same kind come.

        The bills themselves are no estimates: what is uncertain is whether the next day, or all the traffic of which these
        are a sample, would show the same. A percentile bootstrap that draws whole clusters (`cluster`: conversations, users,
        …; an attempt without one is drawn with its request), as `labkit.spending.intervals` says; `seed` repeats it. The
        amounts are of the attempts in the slices: of a log that kept one conversation in ten, all is ten times as much.
        Raises `InvalidValue` for a period with 1 to 19 clusters, from which nothing can be told.
        """
        return draw(self.slices, self.by, cluster, draws, level, seed, places)

    def behind(self, factor: str, limit: int = 20) -> pd.DataFrame:
        """The requests behind the part of `factor`: those that did most of what it says, the first ones first.

        Columns: `period` ("before" or "after"), those of `by`, `organisation`, `request`, `attempts`, `input_tokens`,
        `output_tokens`, `cost` (exact), and `excess`: what the request cost more, for this factor, than the mean of the
        earlier period in its segment (an estimate, as `labkit.spending.behind` says). One request's receipt is
        `attribute(Slice(ledger, only={"organisation": …, "request": …}), ["attempt"])`. Raises `InvalidValue` for what is
        none of `FACTORS`.
        """
        if factor not in FACTORS:
            raise InvalidValue(f"no part of a bill is called {factor!r}; use one of {', '.join(FACTORS)}")
        parts = {key: parts[FACTORS.index(factor)] for key, parts in self.exact.items()}
        return requests_behind(self.slices, self.by, self.counts, self.requests, parts, factor, limit)

    def told(self, places: int = 2) -> str:
        """The sentence that a controller reads: what changed, and the parts, the largest first."""
        before, after = rounded(self.before, places), rounded(self.after, places)
        difference = after - before
        parts = sorted(((part, name) for name, part in self.parts(places).items() if part), key=lambda one: -abs(one[0]))
        if difference:
            how = f"{'rose' if difference > 0 else 'fell'} by {abs(difference):,} {self.currency}"
            sentence = f"The bill {how}, from {before:,} to {after:,}"
        else:
            sentence = f"The bill stayed at {after:,} {self.currency}"
        if parts:
            sentence += ": " + ", ".join(f"{part:+,} because {_WORDS[name][part < 0]}" for part, name in parts)
        if any(self.unpriced):
            was, now = self.unpriced
            sentence += f". Nobody knows the cost of {was:,} attempts before and {now:,} after; they are in neither bill"
        return sentence + "."


def explain_change(before: Slice, after: Slice, by: Sequence[str] = ("feature", "model")) -> Explanation:
    """Why the bill of `after` is not that of `before`, for segments by the dimensions `by`.

    Give both slices the price lists that were in force: only they tell tokens from prices. A segment that is in one bill
    only has a share of 0 of the other's requests; all its other factors are taken from the bill that it is in, so it is
    volume and mix. A price of a kind of token that only one bill has counts for both. A segment of which no first attempt
    is known counts each attempt as a request. Raises `InvalidValue` for bills in several currencies.
    """
    by = tuple(dict.fromkeys(by))
    was, now = segments(before, by), segments(after, by)
    currencies = sorted({segment.currency for segment in (*was, *now)})
    if len(currencies) > 1:
        raise InvalidValue(
            f"the bills are in {', '.join(currencies)}, which cannot be added; take one of them, as in "
            f'Slice(ledger, only={{"currency": "{currencies[0]}"}})'
        )
    old, new = ({segment.key: segment for segment in found} for found in (was, now))
    totals = [
        requests_in(part) or sum(segment.attempts for segment in found) for part, found in ((before, was), (after, now))
    ]
    requests = (totals[0], totals[1])
    counts = {key: (_counts(old.get(key)), _counts(new.get(key))) for key in sorted(old.keys() | new.keys())}
    return Explanation(
        by,
        currencies[0] if currencies else "USD",
        _sum(was),
        _sum(now),
        requests,
        (sum(segment.unpriced for segment in was), sum(segment.unpriced for segment in now)),
        {key: exact_parts(*both, requests) for key, both in counts.items()},
        (before, after),
        counts,
    )


def _sum(found: Sequence[Segment]) -> Decimal:
    with localcontext(prec=100):
        return sum((segment.total for segment in found), Decimal(0))


def _counts(segment: Segment | None) -> Counts:
    one = segment or Segment((), "")
    usage = one.usage
    return Counts(
        one.requests or one.attempts, one.attempts, one.served, one.split + one.unsplit, one.split,
        usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.visible_output_tokens,
        usage.reasoning_tokens,
        tuple(Fraction(getattr(one.cost, kind)) for kind in TOKEN_KINDS), Fraction(one.unsplit_cost),
    )  # fmt: skip
