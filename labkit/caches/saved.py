"""What repeated answers would have cost, read from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.request import hops

if TYPE_CHECKING:
    import pandas as pd

    from labkit.ledger import Ledger


def savings(ledger: Ledger, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """What the repeated answers had cost when they were first computed, for every value of the attributes `by`.

    A repeated answer is a completed attempt with "response-cache", "semantic-cache", "single-flight" or "idempotent" on its
    route, and no tokens. Its response id is the id of the original answer plus the time at which the original ended, because
    some servers reuse their ids. The attempt in the same ledger with that id and time says what the original used. Columns:
    those of `by`, `labkit.currency`, `answers` (how many were repeated), `unknown` (how many of them have no original in
    this ledger, or an original without a cost; if there are any, the saving is a lower bound), `input_tokens` and
    `output_tokens` that were not computed again, `saved` (exact decimal). Raises `LedgerError` for an unknown attribute.
    """
    from labkit.ledger import check_names

    check_names(by, ledger.path)
    groups = ", ".join(f'"{name}"' for name in dict.fromkeys((*by, "labkit.currency")))
    frame = ledger.frame(_SAVINGS.format(groups=groups))
    return frame.rename(columns={"labkit.cost": "saved"})


_REPEATED = f"""EXISTS (
    SELECT 1 FROM json_each("labkit.route")
    WHERE substr(value, 1, instr(value || ':', ':') - 1) IN ({", ".join(f"'{kind}'" for kind in hops.REPEATED)}))
  AND coalesce("gen_ai.usage.input_tokens", 0) + coalesce("gen_ai.usage.output_tokens", 0) = 0"""
# An id written by a cache ends in "@" and 17 characters of seconds (labkit.caches.streams). Any other id names the original
# only if a single attempt has it. If several originals have one id and one moment, the cheapest counts.
_SAVINGS = f"""
WITH again AS (
  SELECT *, CASE WHEN substr("gen_ai.response.id", -18, 1) = '@' THEN substr("gen_ai.response.id", 1,
      length("gen_ai.response.id") - 18) ELSE "gen_ai.response.id" END AS original,
    CASE WHEN substr("gen_ai.response.id", -18, 1) = '@' THEN CAST(substr("gen_ai.response.id", -17) AS REAL) END AS ended
  FROM attempts WHERE "labkit.outcome" = 'completed' AND {_REPEATED}),
first AS MATERIALIZED (
  SELECT coalesce("gen_ai.response.id", '') AS id, "labkit.started_unix" + "labkit.e2e" AS ended,
    "gen_ai.usage.input_tokens" AS input, "gen_ai.usage.output_tokens" AS output, "labkit.cost" AS cost,
    "labkit.currency" AS currency
  FROM attempts WHERE "labkit.outcome" = 'completed' AND NOT ({_REPEATED})),
alone AS (SELECT id FROM first WHERE id <> '' GROUP BY id HAVING count(*) = 1),
matched AS (
  SELECT again.*, first.input, first.output, first.cost, min(CAST(first.cost AS REAL)) AS least
  FROM again LEFT JOIN first ON first.id = again.original AND first.currency = again."labkit.currency"
    AND CASE WHEN again.ended IS NULL THEN first.id IN (SELECT id FROM alone)
      ELSE abs(first.ended - again.ended) < 0.001 END
  GROUP BY again."labkit.attempt_id")
SELECT {{groups}}, count(*) AS answers, count(*) - count(cost) AS unknown, coalesce(sum(input), 0) AS input_tokens,
  coalesce(sum(output), 0) AS output_tokens, coalesce(decimal_sum(cost), '0') AS "labkit.cost"
FROM matched GROUP BY {{groups}} ORDER BY {{groups}}"""
