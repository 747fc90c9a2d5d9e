"""A holdout: a share of the traffic stays untouched, so that what a shrinker saves is measured, not estimated.

Which arm a request is in follows from its key (its workflow or its user) by a hash, so every row of the ledger tells its arm
by itself, and all calls behind one key are in one arm: second calls that had to ask for what was dropped are paid by the arm
that dropped it. `saving` compares what a task costs in the two arms.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from labkit.extras import extra
from labkit.ledger import Row
from labkit.request import Done, Event, Handler, InvalidValue, LabError, Request, hops
from labkit.routing import dealt
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

Arm = Literal["shrunk", "untouched"]
SHRUNK: Final = "shrunk"
UNTOUCHED: Final = "untouched"


class NoKey(LabError):
    """The request does not say whose it is, so it is in no arm."""


@dataclass(frozen=True)
class Holdout(Shrinker):
    """Lets `shrinker` work on all keys but a `share` of them (0 to 1), which stay untouched for good.

    `by` says what a request's key is: its workflow, so that all calls behind one answer are in one arm, or its user, so that
    a person meets one arm only. Another `name` deals all keys anew. The route gets "split:name=untouched" or
    "split:name=shrunk". A request without a key is sent as it is, counts in no arm, and `Done.faults` says so. Raises
    `InvalidValue` for a share outside 0 to 1, an empty name and another key.
    """

    shrinker: Shrinker
    share: float = 0.1
    name: str = "holdout"
    by: Literal["workflow", "user"] = "workflow"

    def __post_init__(self) -> None:
        if not isinstance(self.shrinker, Shrinker):
            raise InvalidValue(f"Holdout takes a shrinker; {self.shrinker!r:.80} is none")
        if not 0 <= self.share <= 1:
            raise InvalidValue(f"share is {self.share!r:.80}; give the share of the keys that stays untouched, from 0 to 1")
        if not self.name:
            raise InvalidValue("a holdout without a name deals its keys like any other; give it one")
        if self.by not in ("workflow", "user"):
            raise InvalidValue(f"by is {self.by!r:.80}; use 'workflow' or 'user'")

    def arm(self, of: Request | Row) -> Arm | None:
        """The arm of a request, or of a row of the ledger; None where it has no key."""
        key = of.workflow if self.by == "workflow" else of.user
        if not key:
            return None
        return UNTOUCHED if dealt(self.name, of.tenant, key) < self.share else SHRUNK

    async def shrink(self, request: Request) -> Shrunk:
        """What is sent for `request` in its arm. Raises `NoKey` for a request without a key."""
        arm = self.arm(request)
        if arm is None:
            raise NoKey(f"a request without a {self.by} is in no arm; set Request.{self.by}, or hold out by another key")
        return Shrunk.of(request.messages) if arm == UNTOUCHED else await self.shrinker.shrink(request)

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked with shorter prompts but for the untouched keys."""
        shortened = self.shrinker.over(inner)
        without_key = super().over(inner)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            arm = self.arm(request)
            chosen = {UNTOUCHED: inner, SHRUNK: shortened}.get(arm or "", without_key)
            async with aclosing(chosen(request)) as events:
                async for event in events:
                    if isinstance(event, Done) and arm is not None:
                        event = event.via(hops.hop(hops.SPLIT, f"{self.name}={arm}"))
                    yield event

        return handle


@dataclass(frozen=True, slots=True)
class Compared:
    """A mean of each arm, and the share by which the shrunk arm's is lower, with its interval.

    `saved` is 1 − shrunk / untouched: below 0 where the shrunk arm's is higher. `low` and `high` hold the true share with
    probability `level` of the `Saving`.
    """

    shrunk: float
    untouched: float
    saved: float
    low: float
    high: float

    @property
    def sure(self) -> bool | None:
        """True where it is lower, False where it is higher, None where the interval cannot tell."""
        return True if self.low > 0 else False if self.high < 0 else None


@dataclass(frozen=True, slots=True)
class TooFew:
    """No headline: an arm has fewer keys than asked for. `more` says how many keys each arm still needs."""

    keys: dict[Arm, int]
    least: int

    @property
    def more(self) -> dict[Arm, int]:
        """The keys that each arm needs beside those it has."""
        return {arm: max(0, self.least - have) for arm, have in self.keys.items()}

    def __str__(self) -> str:
        wanted = ", ".join(f"{count} more {arm}" for arm, count in self.more.items() if count)
        return f"no saving is stated yet: it takes {self.least} keys in each arm, so {wanted} ({self.keys})"


@dataclass(frozen=True, slots=True)
class Saving:
    """What a shrinker saves, measured against its holdout: tokens, cache hits and money stand together.

    All are per task; a task is a workflow (or, without one, a request), with all its calls. `usd`: money in the ledger's
    currency. `input_tokens` and `fresh_tokens`: those read, and those of them that no cache had. `output_tokens`, `calls`:
    second calls show here. `hits`: the share of the input that came from a cache, (shrunk, untouched). `bounced`: what the
    further calls of the shrunk arm cost per task, by the mean cost of its calls; it is part of `usd` already. `keys`: keys
    in each arm. `unkeyed`: rows in no arm, which are left out.
    """

    usd: Compared
    input_tokens: Compared
    fresh_tokens: Compared
    output_tokens: Compared
    calls: Compared
    hits: tuple[float, float]
    bounced: float
    keys: dict[Arm, int]
    unkeyed: int
    level: float


def saving(rows: Iterable[Row], holdout: Holdout, least: int = 30, level: float = 0.95) -> Saving | TooFew:
    """What the ledger's rows (`ledger.rows()`) say of `holdout`: the saving per task, or how many more keys it takes.

    The keys are the clusters: all rows of one key are one observation, since its tasks are alike. A mean is the sum over
    all keys by the number of their tasks. The interval is of the log of the ratio of the two means, by the delta method with
    the variance between keys (Cochran, "Sampling Techniques", 1977, ch. 6; Deng, Knoblich, Lu, KDD 2018), and Student's t
    with Welch's degrees of freedom. Where a few keys cost most of the money, it is somewhat too narrow: with lognormal costs
    (σ = 1) and 30 untouched keys, a 95 % interval held the truth in 92 % of 1,000 simulations. Fewer than `least` keys in an
    arm give no number: with three keys, one long conversation is the result. All rows count: retries, shadow calls, and a
    shrinker's own calls.

    Raises `InvalidValue` for a `least` below 2, rows without a cost, and rows in several currencies.
    """
    if least < 2 or not 0 < level < 1:
        raise InvalidValue(f"least is {least} and level {level}; take 2 keys or more, and a level between 0 and 1")
    by_key: dict[Arm, dict[tuple[str, str], list[Row]]] = {SHRUNK: defaultdict(list), UNTOUCHED: defaultdict(list)}
    unkeyed, currencies, unpriced = 0, set(), 0
    for row in rows:
        arm = holdout.arm(row)
        if arm is None:
            unkeyed += 1
            continue
        unpriced += row.cost is None
        currencies.add(row.currency)
        by_key[arm][row.tenant, row.workflow if holdout.by == "workflow" else row.user].append(row)
    if unpriced or len(currencies) > 1:
        raise InvalidValue(
            f"{unpriced} rows have no cost, and the currencies are {sorted(currencies)}; book with a price for every model, "
            "in one currency"
        )
    keys: dict[Arm, int] = {arm: len(found) for arm, found in by_key.items()}
    if min(keys.values()) < least:
        return TooFew(keys, least)
    table = {arm: np.array([_sums(rows) for rows in found.values()]) for arm, found in by_key.items()}
    usd, read, fresh, written, calls = (_compared(table, column, level) for column in range(1, 6))
    hits = (
        1 - fresh.shrunk / read.shrunk if read.shrunk else 0.0,
        1 - fresh.untouched / read.untouched if read.untouched else 0.0,
    )
    bounced = (calls.shrunk - calls.untouched) * usd.shrunk / calls.shrunk
    return Saving(usd, read, fresh, written, calls, hits, bounced, keys, unkeyed, level)


def _sums(rows: list[Row]) -> tuple[float, ...]:
    """Of one key: tasks, money, input tokens, those of them not read from a cache, output tokens, calls."""
    tasks = {row.workflow or row.idempotency_key or row.attempt_id for row in rows}
    usages = [row.usage for row in rows]
    read = sum(u.input_tokens for u in usages if u)
    return (
        float(len(tasks)),
        float(sum(row.cost for row in rows if row.cost is not None)),
        float(read),
        float(read - sum(u.cached_tokens for u in usages if u)),
        float(sum(u.output_tokens for u in usages if u)),
        float(len(rows)),
    )


def _compared(table: dict[Arm, np.ndarray], column: int, level: float) -> Compared:
    with extra("analysis"):
        from scipy.stats import t  # not above: it takes a second to import

    means, variances, freedoms = {}, {}, {}
    for arm, sums in table.items():
        tasks, values = sums[:, 0], sums[:, column]
        n, mean = len(tasks), values.sum() / tasks.sum()
        rest = (values - mean * tasks) / tasks.mean()
        means[arm], freedoms[arm] = float(mean), n - 1
        variances[arm] = float(rest.var(ddof=1) / n / mean**2) if mean else 0.0
    shrunk, untouched = means[SHRUNK], means[UNTOUCHED]
    if not shrunk or not untouched:
        whole = 1 - shrunk / untouched if untouched else math.nan
        return Compared(shrunk, untouched, whole, whole, whole)
    both = sum(variances.values())
    freedom = both**2 / sum(v**2 / freedoms[arm] for arm, v in variances.items() if v) if both else 1.0
    width = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(both) if both else 0.0
    ratio = shrunk / untouched
    return Compared(shrunk, untouched, 1 - ratio, 1 - ratio * math.exp(width), 1 - ratio * math.exp(-width))
