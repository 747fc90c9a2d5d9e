"""Who spent it: a bill by any of its dimensions, with each kind of token, waste and what nobody priced."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from labkit.extras import extra
from labkit.ledger import WASTED
from labkit.request import TOKEN_KINDS
from labkit.spending.segments import Segment, segments
from labkit.spending.slices import Slice, columns

if TYPE_CHECKING:
    import pandas as pd

_REASONS = ("failed", "cancelled", "shadow", "superseded")


def attribute(part: Slice, by: Sequence[str] = ("feature",)) -> pd.DataFrame:
    """The bill of `part` for every value of the dimensions `by` and each currency; see `DIMENSIONS`.

    Columns: those of `by`; `currency`; `requests`, `attempts` and `retries` (attempts after the first); `served` (answers
    that a cache repeated for nothing) and `unpriced` (attempts whose cost nobody knows: with any, `cost` is a lower
    bound); all tokens by kind (`fresh_input`, …); what they cost (`fresh_input_cost`, …) where the slice's `prices` give
    just the cost that was booked, and `unsplit_cost` where they do not; `cost`, the sum of these; and of it, what served
    nobody, by the reasons of `labkit.ledger.waste` (`wasted_failed`, `wasted_cancelled`, `wasted_shadow`,
    `wasted_superseded`).

    All money is exact, and whatever the dimensions, each column but `requests` adds up to that of the whole. A request whose
    attempts differ in a dimension counts once in each of its values. Raises `InvalidValue` for an unknown dimension.
    """
    with extra("analysis"):
        import pandas as pd

    by = tuple(dict.fromkeys(by))
    chosen, groups = columns(by)
    condition, values = part.where()
    more: dict[tuple[Any, ...], dict[str, Any]] = {}
    wasted = part.ledger.frame(
        f'SELECT {chosen}"labkit.currency" AS currency, {WASTED} AS reason, coalesce(decimal_sum("labkit.cost"), \'0\') '
        f"FROM attempts WHERE {condition} GROUP BY {groups}currency, reason HAVING reason IS NOT NULL",
        values,
    )
    for *key, reason, amount in wasted.itertuples(index=False, name=None):
        more.setdefault(tuple(key), {})[f"wasted_{reason}"] = Decimal(amount)
    retried = part.ledger.frame(
        f'SELECT {chosen}"labkit.currency" AS currency, count(*) FROM attempts WHERE {condition} AND "labkit.attempt" > 1 '
        f"GROUP BY {groups}currency",
        values,
    )
    for *key, number in retried.itertuples(index=False, name=None):
        more.setdefault(tuple(key), {})["retries"] = int(number)
    rows = []
    for one in segments(part, by):
        beside = more.get((*one.key, one.currency), {})
        rows.append({
            **dict(zip(by, one.key, strict=True)),
            "currency": one.currency,
            "requests": one.requests, "attempts": one.attempts, "retries": beside.get("retries", 0),
            "served": one.served, "unpriced": one.unpriced,
            **one.tokens.by_kind(),
            **{f"{kind}_cost": getattr(one.cost, kind) for kind in TOKEN_KINDS},
            "unsplit_cost": one.unsplit_cost, "cost": _exact(one),
            **{f"wasted_{reason}": beside.get(f"wasted_{reason}", Decimal(0)) for reason in _REASONS},
        })  # fmt: skip
    names = [
        *dict.fromkeys((*by, "currency")), "requests", "attempts", "retries", "served", "unpriced", *TOKEN_KINDS,
        *(f"{kind}_cost" for kind in TOKEN_KINDS), "unsplit_cost", "cost", *(f"wasted_{reason}" for reason in _REASONS),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _exact(one: Segment) -> Decimal:
    with localcontext(prec=100):
        return one.total
