"""One attempt as a row, and the names of its attributes.

Names follow OpenTelemetry's semantic conventions for generative AI if these have one, else they are `labkit.*`. Latencies
are not stored but derived from the raw timestamps. OpenTelemetry's `gen_ai.response.time_to_first_chunk` is left out on
purpose: it ends at the first chunk, while TTFT, as this lab defines it, ends at the first *non-empty* chunk.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Literal, get_args

from labkit.ledger.errors import InvalidRow
from labkit.request import InvalidValue, Timing, Usage, UsageSource

Outcome = Literal["completed", "cancelled", "failed"]
Kind = Literal["text", "integer", "real", "flag", "list", "money"]

COST_PLACES = 18
"""How many decimal places a cost keeps: a millionth of a millionth of a microdollar.

Parquet's decimal128(38, 18) holds the same number of places.
"""
_EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-COST_PLACES)
_COST_LIMIT = Decimal(10) ** (38 - COST_PLACES)
_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the ledger: the field of `Row` it keeps, its attribute name, and the kind of its value.

    `required`: the value is never None.
    """

    field: str
    name: str
    kind: Kind
    required: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("attempt_id", "labkit.attempt_id", "text", required=True),
    Column("outcome", "labkit.outcome", "text", required=True),
    Column("operation", "gen_ai.operation.name", "text", required=True),
    Column("provider", "gen_ai.provider.name", "text", required=True),
    Column("request_model", "gen_ai.request.model", "text", required=True),
    Column("response_model", "gen_ai.response.model", "text"),
    Column("response_id", "gen_ai.response.id", "text"),
    Column("finish_reasons", "gen_ai.response.finish_reasons", "list", required=True),
    Column("error_type", "error.type", "text"),
    Column("max_tokens", "gen_ai.request.max_tokens", "integer"),
    Column("temperature", "gen_ai.request.temperature", "real"),
    Column("input_tokens", "gen_ai.usage.input_tokens", "integer"),
    Column("output_tokens", "gen_ai.usage.output_tokens", "integer"),
    Column("cached_tokens", "gen_ai.usage.cache_read.input_tokens", "integer"),
    Column("cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens", "integer"),
    Column("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens", "integer"),
    Column("usage_source", "labkit.usage.source", "text", required=True),
    Column("cost", "labkit.cost", "money"),
    Column("currency", "labkit.currency", "text", required=True),
    Column("tenant", "labkit.tenant", "text", required=True),
    Column("user", "labkit.user", "text", required=True),
    Column("feature", "labkit.feature", "text", required=True),
    Column("workflow", "labkit.workflow", "text", required=True),
    Column("prompt_version", "labkit.prompt_version", "text", required=True),
    Column("idempotency_key", "labkit.idempotency_key", "text", required=True),
    Column("attempt", "labkit.attempt", "integer", required=True),
    Column("shadow", "labkit.shadow", "flag", required=True),
    Column("route", "labkit.route", "list", required=True),
    Column("sent", "labkit.sent", "real"),
    Column("first_token", "labkit.first_token", "real"),
    Column("last_token", "labkit.last_token", "real"),
    Column("done", "labkit.done", "real"),
    Column("started_unix", "labkit.started_unix", "real"),
    Column("note", "labkit.note", "text"),
)
"""Every stored column, in the ledger's order."""

DERIVED: Mapping[str, str] = {
    "labkit.ttft": '"labkit.first_token" - "labkit.sent"',
    "labkit.e2e": '"labkit.done" - "labkit.sent"',
    "labkit.tpot": 'CASE WHEN "gen_ai.usage.output_tokens" >= 2 AND coalesce("gen_ai.usage.reasoning.output_tokens", 0) = 0'
    ' THEN ("labkit.done" - "labkit.first_token") / ("gen_ai.usage.output_tokens" - 1) END',
}
"""Latencies in seconds, computed from the raw timestamps when they are read; NULL if undefined (see `Timing`).

TPOT is NULL for an answer with reasoning tokens. A row does not say whether these tokens were streamed, that is, whether
they came before or after the first token. If 900 hidden tokens counted, ten visible ones would look a hundred times as fast.
"""

KINDS: Mapping[str, Kind] = {column.name: column.kind for column in COLUMNS} | {name: "real" for name in DERIVED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attempt at a request, as it is kept.

    Token counts follow the conventions: `input_tokens` includes `cached_tokens` and `cache_write_tokens`, and
    `output_tokens` includes `reasoning_tokens`. None means unknown, which is not 0. `usage_source` says where the counts
    came from: the engine's final count ("reported"), its running count before the stream was cut ("running"), the chunks
    that had arrived ("counted": output only), or nowhere ("unknown").

    `cost` is exact money in `currency`. It is rounded half-even to 18 places once, here, so that the ledger, a dataframe and
    a Parquet file all hold the same number. None means that nobody priced the attempt.

    `note` says in words what is not known of the attempt, and why; None if everything is known.

    `sent`, `first_token`, `last_token` and `done` are seconds on the clock of the run (arbitrary zero); `started_unix` is
    `sent` as seconds since 1970. Raises `InvalidRow` for values that do not fit.
    """

    provider: str
    outcome: Outcome = "completed"
    operation: str = "chat"
    request_model: str = ""
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    error_type: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = "unknown"
    cost: Decimal | None = None
    currency: str = "USD"
    tenant: str = ""
    user: str = ""
    feature: str = ""
    workflow: str = ""
    prompt_version: str = ""
    idempotency_key: str = ""
    attempt: int = 1
    shadow: bool = False
    route: tuple[str, ...] = ()
    sent: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    done: float | None = None
    started_unix: float | None = None
    note: str | None = None
    attempt_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        for column in COLUMNS:
            value = getattr(self, column.field)
            if value is None and not column.required:
                continue
            clean = _CLEAN[column.kind](column, value)
            if clean is not value:
                object.__setattr__(self, column.field, clean)
        if not self.provider or not self.attempt_id or not self.currency:
            raise InvalidRow("a row needs a provider, a currency and an attempt_id; one of them is empty")
        if self.outcome not in get_args(Outcome):
            raise InvalidRow(f"outcome is {self.outcome!r}; use one of {', '.join(get_args(Outcome))}")
        if self.usage_source not in get_args(UsageSource):
            raise InvalidRow(f"usage_source is {self.usage_source!r}; use one of {', '.join(get_args(UsageSource))}")
        if self.attempt < 1:
            raise InvalidRow(f"attempt is {self.attempt}; attempts count from 1")
        try:
            _ = self.usage
        except InvalidValue as error:
            raise InvalidRow(str(error)) from error

    @property
    def usage(self) -> Usage | None:
        """The token counts as one `Usage`, with unknown parts as 0; None if neither input nor output is known."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        cached, written, reasoning = self.cached_tokens or 0, self.cache_write_tokens or 0, self.reasoning_tokens or 0
        return Usage(
            cached + written if self.input_tokens is None else self.input_tokens,
            reasoning if self.output_tokens is None else self.output_tokens,
            cached,
            written,
            reasoning,
        )

    @property
    def timing(self) -> Timing | None:
        """The raw timestamps as one `Timing`, which derives every latency; None if the start is unknown."""
        if self.sent is None:
            return None
        return Timing(self.sent, self.first_token, self.last_token, self.done, self.started_unix)

    def to_sql(self) -> list[Any]:
        """The values in the order of `COLUMNS`, in the form in which SQLite keeps them."""
        return [_TO_SQL[column.kind](getattr(self, column.field)) for column in COLUMNS]

    @classmethod
    def from_sql(cls, values: Sequence[Any]) -> Row:
        """The row from the values that `to_sql` gave.

        Raises `InvalidRow`, ValueError, TypeError or ArithmeticError for damaged values.
        """
        return cls(**{column.field: from_sql(column.kind, value) for column, value in zip(COLUMNS, values, strict=True)})


def usage_fields(usage: Usage, source: UsageSource) -> dict[str, Any]:
    """The fields of `Row` that hold `usage`, with its `source`."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": source,
    }


def from_sql(kind: Kind, value: Any) -> Any:
    """A stored value of `kind` as a Python value."""
    if value is None:
        return None
    if kind == "money":
        return Decimal(value)
    if kind == "flag":
        return bool(value)
    if kind == "list":
        return tuple(json.loads(value))
    return value


def _text(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRow(f"{column.field} is {value!r:.80}; use text")
    # A lone surrogate (broken JSON from an engine) has no UTF-8 form. It is escaped, so that a paid answer is still booked.
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")


def _integer(column: Column, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _INT64:
        raise InvalidRow(f"{column.field} is {value!r:.80}; use a whole number from 0 to {_INT64}")
    return value


def _real(column: Column, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRow(f"{column.field} is {value!r:.80}; use a finite number")
    return value if isinstance(value, float) else float(value)


def _flag(column: Column, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRow(f"{column.field} is {value!r:.80}; use True or False")
    return value


def _list(column: Column, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidRow(f"{column.field} is {value!r:.80}; use a tuple of texts")
    return tuple(_text(column, item) for item in value)


def _money(column: Column, value: Any) -> Decimal:
    if not isinstance(value, Decimal):
        raise InvalidRow(f"{column.field} is {value!r:.80}; use Decimal: a float is not exact money")
    if not value.is_finite() or not 0 <= value < _COST_LIMIT:
        raise InvalidRow(f"{column.field} is {value}; use an amount from 0 to below 10^{38 - COST_PLACES}")
    exponent = value.as_tuple().exponent
    return value.quantize(_QUANTUM, context=_EXACT) if isinstance(exponent, int) and exponent < -COST_PLACES else value


_CLEAN: Mapping[Kind, Callable[[Column, Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "real": _real,
    "flag": _flag,
    "list": _list,
    "money": _money,
}


def _same(value: Any) -> Any:
    return value


_TO_SQL: Mapping[Kind, Callable[[Any], Any]] = {
    "text": _same,
    "integer": _same,
    "real": _same,
    "flag": int,
    "list": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "money": lambda value: None if value is None else format(value, "f"),
}
