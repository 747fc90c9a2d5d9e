"""A part of a ledger, and the dimensions by which it is split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labkit.cost import Price
from labkit.ledger import Ledger
from labkit.request import InvalidValue, hops
from labkit.spending.rates import check_prices

_KINDS = ", ".join(f"'{kind}'" for kind in hops.REPEATED)
_KIND_OF_HOP = "substr(value, 1, instr(value || ':', ':') - 1)"
SERVED = f"""("labkit.route" <> '[]' AND coalesce("gen_ai.usage.input_tokens", 0) = 0
  AND coalesce("gen_ai.usage.output_tokens", 0) = 0 AND CAST("labkit.cost" AS REAL) = 0
  AND EXISTS (SELECT 1 FROM json_each("labkit.route") WHERE {_KIND_OF_HOP} IN ({_KINDS})))"""
"""SQL: whether the answer was repeated and not computed, for nothing (`labkit.caches` books no tokens and cost 0)."""

DIMENSIONS: Mapping[str, str] = {
    "request": """CASE WHEN "labkit.idempotency_key" <> '' THEN "labkit.idempotency_key" ELSE "labkit.attempt_id" END""",
    "workflow": '"labkit.workflow"',
    "user": '"labkit.user"',
    "organisation": '"labkit.tenant"',
    "feature": '"labkit.feature"',
    "prompt_version": '"labkit.prompt_version"',
    "model": """CASE WHEN "gen_ai.request.model" <> '' THEN "gen_ai.request.model"
  ELSE coalesce("gen_ai.response.model", '') END""",
    "provider": '"gen_ai.provider.name"',
    "attempt": '"labkit.attempt"',
    "outcome": '"labkit.outcome"',
    "cache_layer": f"""CASE WHEN {SERVED}
  THEN (SELECT {_KIND_OF_HOP} FROM json_each("labkit.route") WHERE {_KIND_OF_HOP} IN ({_KINDS}) ORDER BY key LIMIT 1)
  WHEN "gen_ai.usage.cache_read.input_tokens" > 0 THEN 'provider' ELSE '' END""",
    "day": """coalesce(date("labkit.started_unix", 'unixepoch'), '')""",
    "currency": '"labkit.currency"',
}
"""What a bill can be split by, as SQL over the table `attempts`.

"request" is its idempotency key, or the attempt's id where it has none; two organisations may use one key. "model" is the
one asked for, else the one that answered. "cache_layer" is where the answer came from ("response-cache", "semantic-cache",
"single-flight"), "provider" where the engine found a part of the prompt in its own cache, and "" where nothing was found.
"day" is a date in UTC.
"""

KEYED = """CASE WHEN "labkit.idempotency_key" <> '' THEN hex("labkit.tenant") || ':' || "labkit.idempotency_key" END"""
"""SQL: what attempts at one request share, an idempotency key of one organisation; NULL without a key."""
FIRST = """("labkit.idempotency_key" = '' AND "labkit.attempt" = 1 AND NOT "labkit.shadow")"""
"""SQL: whether a request without a key begins here."""
REQUESTS = f"count(DISTINCT {KEYED}) + coalesce(sum({FIRST}), 0)"
"""SQL: the number of requests. Attempts with one key of one organisation are one; a first attempt without a key is one."""


@dataclass(frozen=True)
class Slice:
    """A part of a ledger: the attempts that started from `since` to before `until`, in seconds since 1970.

    `only` keeps those with the given value of a dimension, or one of a list of values: `{"prompt_version": "v2"}`. An
    attempt without a start is in no slice that has a bound. `prices` are the price lists by which it was booked, by model
    and "*" for all others, as `labkit.ledger.Booked` takes them: a ledger keeps what an attempt cost, and they say for
    which tokens. Raises `InvalidValue` for an unknown dimension and for bounds that leave nothing.
    """

    ledger: Ledger
    since: float | None = None
    until: float | None = None
    only: Mapping[str, object] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_dimensions(self.only)
        check_prices(self.prices)
        for name, wanted in self.only.items():
            if wanted is None:
                raise InvalidValue(f"only asks for a {name} of None; what nobody said is '' in a ledger")
        for name, value in (("since", self.since), ("until", self.until)):
            if value is not None and not math.isfinite(value):
                raise InvalidValue(f"{name} is {value}; give seconds since 1970, or None for no bound")
        if self.since is not None and self.until is not None and not self.since < self.until:
            raise InvalidValue(f"the slice ends at {self.until}, and starts at {self.since}; it must start before it ends")

    def where(self) -> tuple[str, list[object]]:
        """The slice as an SQL condition, with the values of its `?` marks."""
        parts: list[str] = ["1"]
        values: list[object] = []
        for bound, sign in ((self.since, ">="), (self.until, "<")):
            if bound is not None:
                parts.append(f'"labkit.started_unix" {sign} ?')
                values.append(bound)
        for name, wanted in self.only.items():
            options = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
            parts.append(f"{DIMENSIONS[name]} IN ({', '.join('?' * len(options))})")
            values += options
        return " AND ".join(parts), values


def check_dimensions(names: Iterable[str]) -> None:
    """Raise `InvalidValue` for a name that is none of `DIMENSIONS`."""
    for name in names:
        if name not in DIMENSIONS:
            raise InvalidValue(f"a bill cannot be split by {name!r}; use {', '.join(DIMENSIONS)}")


def columns(by: Sequence[str]) -> tuple[str, str]:
    """The dimensions `by` as SQL columns d0, d1, …, and the list of these for GROUP BY; ends with a comma unless empty."""
    check_dimensions(by)
    chosen = "".join(f"{DIMENSIONS[name]} AS d{index}, " for index, name in enumerate(by))
    return chosen, "".join(f"d{index}, " for index in range(len(by)))
