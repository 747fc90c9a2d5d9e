"""The cost of a correct answer: all that was paid, over the answers that were right.

Cost per answer rewards an answer that is short and wrong. The cost of a correct one counts what was cut, asked again and
thrown away with the rest, and divides by what came of it. It is a ratio of two means of the same requests, so its interval
is Fieller's (1954), which needs no share of right answers far from 0: where that share may be 0, the interval has no upper
end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from labkit.extras import extra
from labkit.ledger import Row
from labkit.output.asking import whole_key
from labkit.output.cap import OnCut
from labkit.request import InvalidValue, is_whole
from labkit.routing import Interval

if TYPE_CHECKING:
    import pandas as pd


def cost_per_correct(costs: Sequence[float], right: Sequence[float], level: float = 0.95) -> Interval:
    """Σ cost / Σ right over requests, with Fieller's interval; each request has its whole cost, and 1 for right or 0.

    The estimate is infinite where nothing was right, and the upper end where the share of right answers may be 0. Raises
    `InvalidValue` for fewer than two requests, and for lists of different lengths.
    """
    n = len(costs)
    if n < 2 or n != len(right) or not 0 < level < 1:
        raise InvalidValue(f"{n} costs and {len(right)} grades at level {level}; give at least two requests, with both")
    if not any(right):
        return Interval(math.inf, 0.0, math.inf, level)
    c, r = math.fsum(costs) / n, math.fsum(right) / n
    q = NormalDist().inv_cdf((1 + level) / 2) ** 2 / n
    cc = math.fsum((x - c) ** 2 for x in costs) / (n - 1)
    rr = math.fsum((y - r) ** 2 for y in right) / (n - 1)
    cr = math.fsum((x - c) * (y - r) for x, y in zip(costs, right, strict=True)) / (n - 1)
    # The values v for which mean(cost − v · right) is not significantly different from 0: a v² − 2 b v + d ≤ 0.
    a, b, d = r * r - q * rr, c * r - q * cr, c * c - q * cc
    root = math.sqrt(max(0.0, b * b - a * d))
    if a <= 0:
        return Interval(c / r, max(0.0, (b - root) / a) if a else max(0.0, d / (2 * b)), math.inf, level)
    return Interval(c / r, max(0.0, (b - root) / a), (b + root) / a, level)


@dataclass(frozen=True, slots=True)
class Tried:
    """One request's uncapped greedy answer in one form: what any cap would have made of it follows from this.

    `input` is the cost of the prompt once, `token` that of one output token, `tokens` the length of the answer. `needed` is
    after how many tokens the answer is there to be read (all of them by default, its end mark included), `right` whether it
    is right. `again` is what a second request with its input costs before its output: for one that goes on, the cached
    prompt. Raises `InvalidValue` for counts that do not fit.
    """

    form: str
    input: float
    token: float
    tokens: int
    right: bool
    needed: int = -1
    again: float = -1.0

    def __post_init__(self) -> None:
        if self.needed == -1:
            object.__setattr__(self, "needed", self.tokens)
        if self.again == -1.0:
            object.__setattr__(self, "again", self.input)
        if not is_whole(self.tokens, 0) or not is_whole(self.needed, 0) or self.needed > self.tokens:
            raise InvalidValue(f"{self}: an answer needs from 0 to all of its tokens")
        if min(self.input, self.token, self.again) < 0:
            raise InvalidValue(f"{self}: costs are 0 or more")

    def under(self, cap: int, on_cut: OnCut) -> tuple[float, bool, bool]:
        """(cost, right, cut) of this request under `cap`, as `labkit.output.Cap` would treat it."""
        if self.tokens <= cap:
            return self.input + self.token * self.tokens, self.right, False
        paid = self.input + self.token * cap
        if on_cut == "pass":
            return paid, self.right and self.needed <= cap, True
        if on_cut == "again":
            return paid + self.again + self.token * self.tokens, self.right, True
        return paid + self.again + self.token * (self.tokens - cap), self.right, True


def surface(tried: Iterable[Tried], caps: Sequence[int], on_cut: OnCut = "pass", level: float = 0.95) -> pd.DataFrame:
    """Cost per correct answer for each form and cap, exact for greedy answers: a capped answer is the longer one's start.

    Columns: `form`, `cap`, `answers`, `right` (share), `cut` (share), `tokens` (mean output tokens of the first request),
    `cost` (mean), `per_correct`, `low`, `high`. Raises `InvalidValue` for no caps, caps below 1, and fewer than two answers
    of a form.
    """
    with extra("analysis"):
        import pandas as pd

    if not caps or not all(is_whole(cap, 1) for cap in caps):
        raise InvalidValue(f"caps is {caps!r:.80}; give whole numbers of tokens, at least 1")
    by_form: dict[str, list[Tried]] = {}
    for each in tried:
        by_form.setdefault(each.form, []).append(each)
    rows = []
    for form, own in by_form.items():
        for cap in caps:
            found = [each.under(cap, on_cut) for each in own]
            costs, right = [cost for cost, _, _ in found], [float(good) for _, good, _ in found]
            ratio = cost_per_correct(costs, right, level)
            rows.append(
                {
                    "form": form,
                    "cap": cap,
                    "answers": len(own),
                    "right": sum(right) / len(own),
                    "cut": sum(cut for _, _, cut in found) / len(own),
                    "tokens": sum(min(each.tokens, cap) for each in own) / len(own),
                    "cost": sum(costs) / len(own),
                    "per_correct": ratio.estimate,
                    "low": ratio.low,
                    "high": ratio.high,
                }
            )
    return pd.DataFrame(rows)


def cheapest(table: pd.DataFrame) -> pd.Series:
    """The row of `surface` with the lowest cost per correct answer; of equal ones the lowest cap."""
    return table.sort_values(["per_correct", "cap"], kind="stable").iloc[0]


def paid_by_request(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """What each request cost in all, from a ledger's rows: by tenant and idempotency key, every attempt added.

    Parts of one request (a continued answer, a slot, a detail) have its key with a part behind it, and count to it.
    Raises `InvalidValue` for a row without a key or without a cost, and for several currencies: no sum would be true.
    """
    found: dict[tuple[str, str], float] = {}
    currencies = set()
    for row in rows:
        if not row.idempotency_key or row.cost is None:
            raise InvalidValue(
                f"attempt {row.attempt_id} has {'no cost' if row.idempotency_key else 'no idempotency key'}; give every "
                "request a key, and Booked the prices"
            )
        currencies.add(row.currency)
        key = (row.tenant, whole_key(row.idempotency_key))
        found[key] = found.get(key, 0.0) + float(row.cost)
    if len(currencies) > 1:
        raise InvalidValue(f"the rows are in {', '.join(sorted(currencies))}; take one currency at a time")
    return found


def cost_per_correct_of(rows: Iterable[Row], right: Mapping[tuple[str, str], bool], level: float = 0.95) -> Interval:
    """Cost per correct answer of a ledger's requests; `right` says of each (tenant, key) whether its answer was right.

    Raises `InvalidValue` as `paid_by_request` does, and for requests without a grade.
    """
    paid = paid_by_request(rows)
    missing = [key for key in paid if key not in right]
    if missing:
        raise InvalidValue(f"{len(missing)} requests have no grade, such as {missing[0]}; grade each, a lost one as wrong")
    return cost_per_correct(list(paid.values()), [float(right[key]) for key in paid], level)
