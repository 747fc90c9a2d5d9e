"""Reading the ledger: totals by any attribute, token kinds without double counting, and what was paid for nothing.

Tokens are summed as the conventions count them (inclusive) and then split into kinds by `Usage`, the one place that
subtracts; the split of a sum is the sum of the splits. Money is added exactly, and never across currencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.extras import extra
from labkit.ledger.store import Ledger, check_names
from labkit.request import CUT_SHORT, TOKEN_KINDS, Usage

if TYPE_CHECKING:
    import pandas as pd

_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
# Each attempt has one reason, the first that holds, so that no token counts as wasted twice. A retry by itself is not
# waste: the first attempt failed and the second one delivered. But if two attempts at one request both completed, only
# the last one served.
WASTED = """
CASE
  WHEN "labkit.shadow" THEN 'shadow'
  WHEN "labkit.outcome" <> 'completed' THEN "labkit.outcome"
  WHEN "labkit.idempotency_key" <> '' AND EXISTS (
    SELECT 1 FROM attempts AS later
    WHERE later."labkit.idempotency_key" <> '' AND later."labkit.tenant" = attempts."labkit.tenant"
      AND later."labkit.idempotency_key" = attempts."labkit.idempotency_key"
      AND later."labkit.attempt" > attempts."labkit.attempt"
      AND later."labkit.outcome" = 'completed' AND NOT later."labkit.shadow"
  ) THEN 'superseded'
END"""
"""SQL over the table `attempts`: why an attempt was paid for and served nobody; NULL where it served.

The second look at the key, inside, lets SQLite use the index of keyed attempts, without which it reads the whole table anew
for each row.
"""

_HOW = f"""
CASE WHEN "labkit.outcome" = 'completed' AND NOT "labkit.shadow"
  THEN (SELECT value FROM json_each("gen_ai.response.finish_reasons") WHERE value IN {CUT_SHORT!r}) END"""


def spend(ledger: Ledger, by: Sequence[str] = ()) -> pd.DataFrame:
    """Attempts, tokens by kind and exact cost, for every value of the attributes `by` and each currency.

    Columns: those of `by`, `labkit.currency`, `attempts`, `unpriced` (attempts whose cost nobody knows; if there are any,
    `labkit.cost` is a lower bound), `fresh_input`, `cached_input`, `cache_write`, `visible_output`, `reasoning` (tokens; the
    kinds are disjoint, and their sum is all tokens), and `labkit.cost` (exact decimal). Raises `LedgerError` for an unknown
    attribute.
    """
    return _totals(ledger, tuple(by))


def tokens(ledger: Ledger) -> pd.Series[int]:
    """All tokens of the ledger by kind; the kinds are disjoint. Raises `LedgerError` if the ledger cannot be read."""
    totals = _totals(ledger, ())
    return totals[list(TOKEN_KINDS)].sum()


def waste(ledger: Ledger, by: Sequence[str] = ()) -> pd.DataFrame:
    """Attempts that were paid for and served nobody: `spend` of these, with a column `reason` in front.

    The reason is the first of these that holds for an attempt: "shadow"; "failed" or "cancelled"; "superseded", which is a
    completed attempt whose request (same tenant and idempotency key) completed again in a later attempt. A retry that
    delivered is not waste. Raises `LedgerError` for an unknown attribute.
    """
    return _totals(ledger, tuple(by), reason=WASTED)


def cut(ledger: Ledger, by: Sequence[str] = ()) -> pd.DataFrame:
    """Answers that were ended before the model had ended them: `spend` of these, with a column `reason` in front.

    The reason is "length" (a limit) or "repetition" (the engine ended a loop). Such an attempt counts as completed, since it
    was delivered: this account is apart from `waste`, and the two overlap in the answers that were asked again. An answer
    repeated by a cache counts, too: nobody computed it twice, yet someone got half an answer. Raises `LedgerError` for an
    unknown attribute.
    """
    return _totals(ledger, tuple(by), reason=_HOW)


def _totals(ledger: Ledger, by: tuple[str, ...], reason: str = "") -> pd.DataFrame:
    with extra("analysis"):
        import pandas as pd

    check_names(by, ledger.path)
    by = tuple(dict.fromkeys((*by, "labkit.currency")))
    groups = [f'"{name}"' for name in by]
    source = "attempts"
    if reason:
        source = f"(SELECT *, {reason} AS reason FROM attempts) WHERE reason IS NOT NULL"
        groups.insert(0, "reason")
    # A stream that was cut short may have a known output and an unknown input; the unknown part adds nothing.
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
    keys = (["reason"] if reason else []) + list(by)
    return pd.concat([frame[[*keys, "attempts", "unpriced"]], split, frame[["labkit.cost"]]], axis=1)
