"""What is known of each attempt's cost, as SQL: the rows from which every bill is added up.

An attempt is of one class. `served`: a cache repeated an answer for nothing. `unpriced`: nobody knows the cost. `split`: a
price list of the slice gives just the cost that was booked, so it says what each kind of token cost. `unsplit`: the cost is
known as one sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labkit.cost import Rates
from labkit.spending.rates import rates_for
from labkit.spending.slices import FIRST, KEYED, SERVED, Slice, columns

_CACHED, _WRITTEN, _REASONING = (
    f'coalesce("gen_ai.usage.{name}", 0)'
    for name in ("cache_read.input_tokens", "cache_creation.input_tokens", "reasoning.output_tokens")
)
# An unknown total is at least its parts, as in `labkit.ledger.Row.usage`.
_READ = f'coalesce("gen_ai.usage.input_tokens", {_CACHED} + {_WRITTEN})'
_OUT = f'coalesce("gen_ai.usage.output_tokens", {_REASONING})'
TOKENS = (("read", _READ), ("out", _OUT), ("cached", _CACHED), ("written", _WRITTEN), ("reasoning", _REASONING))
"""The tokens of an attempt, as SQL; what is unknown is at least 0."""
USAGE = tuple(name for name, _ in TOKENS)
"""The columns of tokens, in the order of `labkit.request.Usage`."""
KINDS = ("read - cached - written", "cached", "written", "out - reasoning", "reasoning")
"""The tokens of each of `TOKEN_KINDS`, from these columns."""
_LIMITS = ("rate", "asked", "answered", "money", "above", "below", "start_s", "end_s")
_SECOND = 'CAST(coalesce("labkit.started_unix", 0) AS INTEGER) % 86400'
_SQL = """
WITH rates AS MATERIALIZED (SELECT {rate_columns} FROM json_each(?)),
priced AS MATERIALIZED (
  SELECT {chosen}"labkit.currency" AS currency, {tokens}, rate, r0, r1, r2, r3, r4, "labkit.cost" AS cost,
    CAST("labkit.cost" AS REAL) AS paid, {served} AS served, {keyed} AS keyed, {first} AS first
  FROM attempts LEFT JOIN rates ON asked = "gen_ai.request.model" AND answered = coalesce("gen_ai.response.model", '')
    AND money = "labkit.currency" AND {read} > above AND {read} <= below AND {second} >= start_s AND {second} < end_s
  WHERE {condition}),
classed AS MATERIALIZED (
  SELECT *, CASE WHEN cost IS NULL THEN 'unpriced' WHEN served THEN 'served'
    WHEN abs(paid - ({listed})) <= 1e-9 * ({listed}) THEN 'split' ELSE 'unsplit' END AS class FROM priced)
"""


@dataclass(frozen=True, slots=True)
class Classed:
    """SQL that begins a query over the table `classed`, the values of its `?` marks, and the rates that its rows name."""

    sql: str
    values: tuple[object, ...]
    rates: tuple[Rates, ...]


def classed(part: Slice, by: Sequence[str], more: Mapping[str, str] | None = None) -> Classed:
    """The attempts of the slice by class.

    The table's columns: d0, d1, … (the dimensions `by`), those of `more` (name to SQL over `attempts`), currency, those of
    `USAGE`, rate and r0 to r4 (its number and what a token of each kind costs), cost (text) and paid (a float), class, keyed
    and first (see `REQUESTS`).
    """
    condition, values = part.where()
    rates, listed = rates_for(part.prices, _models(part) if part.prices else ())
    chosen = columns(by)[0] + "".join(f"{of} AS {name}, " for name, of in (more or {}).items())
    names = (*_LIMITS, *(f"r{kind}" for kind in range(len(KINDS))))
    sql = _SQL.format(
        rate_columns=", ".join(f"json_extract(value, '$[{index}]') AS {name}" for index, name in enumerate(names)),
        chosen=chosen, tokens=", ".join(f"{of} AS {name}" for name, of in TOKENS), served=SERVED, keyed=KEYED, first=FIRST,
        read=_READ, second=_SECOND, condition=condition,
        listed=" + ".join(f"({tokens}) * r{kind}" for kind, tokens in enumerate(KINDS)),
    )  # fmt: skip
    return Classed(sql, (listed, *values), tuple(rates))


def _models(part: Slice) -> Iterable[tuple[str, str, str]]:
    condition, values = part.where()
    pairs = part.ledger.frame(
        'SELECT DISTINCT "gen_ai.request.model" AS asked, coalesce("gen_ai.response.model", \'\') AS answered, '
        f'"labkit.currency" AS currency FROM attempts WHERE {condition}',
        values,
    )
    return pairs.itertuples(index=False, name=None)
