"""Reading the books: totals by any attribute, token kinds without double counting, and what was paid for nothing.

Tokens are added in the conventions' inclusive counts and split by `Usage`, the one place that subtracts; the split of a
sum is the sum of the splits. Money is added exactly and never across currencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.ledger.store import Ledger, check_names
from labkit.request import TOKEN_KINDS, Usage

if TYPE_CHECKING:
    import pandas as pd

_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
# One reason per attempt, the first that holds, so that no token is wasted twice. A retry by itself is not waste: where
# the first attempt failed, the second one delivered. But of two attempts at one request that both completed, only the
# last served.
_REASON = """
CASE
  WHEN "labkit.shadow" THEN 'shadow'
  WHEN "labkit.outcome" <> 'completed' THEN "labkit.outcome"
  WHEN "labkit.idempotency_key" <> '' AND EXISTS (
    SELECT 1 FROM attempts AS later
    WHERE later."labkit.tenant" = attempts."labkit.tenant"
      AND later."labkit.idempotency_key" = attempts."labkit.idempotency_key"
      AND later."labkit.attempt" > attempts."labkit.attempt"
      AND later."labkit.outcome" = 'completed' AND NOT later."labkit.shadow"
  ) THEN 'superseded'
END"""


def spend(ledger: Ledger, by: Sequence[str] = ()) -> pd.DataFrame:
    """Attempts, tokens by kind and exact cost for every value of the attributes `by`, and for each currency by itself.

    Columns: those of `by`, `labkit.currency`, `attempts`, `unpriced` (attempts whose cost nobody knows, so that
    `labkit.cost` is a lower bound where it is not 0), `fresh_input`, `cached_input`, `cache_write`,
    `visible_output`, `reasoning` (tokens, disjoint: their sum is every token), and `labkit.cost` (exact decimal).
    Raises `LedgerError` for an unknown attribute.
    """
    return _totals(ledger, tuple(by))


def tokens(ledger: Ledger) -> pd.Series[int]:
    """All tokens of the ledger by kind; the kinds are disjoint."""
    totals = _totals(ledger, ())
    return totals[list(TOKEN_KINDS)].sum()


def waste(ledger: Ledger, by: Sequence[str] = ()) -> pd.DataFrame:
    """What was paid for and served nobody: `spend` of the wasted attempts, with a column `reason` in front.

    Reasons, the first that holds for an attempt: "shadow"; "failed" or "cancelled"; "superseded", a completed attempt at
    a request
    (same tenant and idempotency key) that completed again in a later attempt. A retry that delivered is not waste.
    """
    return _totals(ledger, tuple(by), wasted=True)


def _totals(ledger: Ledger, by: tuple[str, ...], wasted: bool = False) -> pd.DataFrame:
    import pandas as pd

    check_names(by, ledger.path)
    by = tuple(dict.fromkeys((*by, "labkit.currency")))
    groups = [f'"{name}"' for name in by]
    source = "attempts"
    if wasted:
        source = f"(SELECT *, {_REASON} AS reason FROM attempts) WHERE reason IS NOT NULL"
        groups.insert(0, "reason")
    # A cut stream may have a known output and an unknown input; unknown adds nothing.
    sums = [f'coalesce(sum("{column}"), 0) AS {field}' for field, column in _USAGE.items()]
    frame = ledger.frame(
        f'SELECT {", ".join(groups)}, count(*) AS attempts, count(*) - count("labkit.cost") AS unpriced, {", ".join(sums)}, '
        f'coalesce(decimal_sum("labkit.cost"), \'0\') AS "labkit.cost" FROM {source} '
        f"GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}"
    )
    usages = [Usage(*(int(value) for value in values)) for values in frame[list(_USAGE)].itertuples(index=False)]
    split = pd.DataFrame(
        [tuple(usage.by_kind().values()) for usage in usages],
        columns=list(TOKEN_KINDS),
        dtype="Int64",
    )
    keys = (["reason"] if wasted else []) + list(by)
    return pd.concat([frame[[*keys, "attempts", "unpriced"]], split, frame[["labkit.cost"]]], axis=1)
