"""A log as a ledger, so that whatever reads a ledger reads the calls of any gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from labkit.cost import Price
from labkit.ledger import Ledger, Row
from labkit.logs.call import Call, Log
from labkit.request import InvalidValue, LabError
from labkit.spending import priced

_AT_ONCE = 20_000


def to_ledger(
    log: Log,
    prices: Mapping[str, Price] | None = None,
    *,
    currency: str = "USD",
    path: str | os.PathLike[str] = ":memory:",
) -> Ledger:
    """The calls of `log` as attempts, one row each, for `labkit.spending` and all that reads a ledger.

    The cost is the one that the log tells, in `currency` where the log names none, and else what its tokens cost by the
    price list of its model in `prices` ("*" for all others); a call with neither stays unpriced. A call's session is its
    row's workflow. The provider is what stands before the "/" of the model's name, else "unknown". A time from the log's
    own zero stays as it is, which is a time in 1970. A call of which the log does not say how it ended counts as
    completed, and its `note` says so. The ledger is in memory, or in a new file at `path`. Raises `InvalidValue` with the
    line of a call that fits no row.
    """
    ledger = Ledger(path)
    try:
        for first in range(0, len(log), _AT_ONCE):
            ledger.extend(_rows(log.calls[first : first + _AT_ONCE], prices or {}, currency))
    except BaseException:
        ledger.close()
        raise
    return ledger


def _rows(calls: tuple[Call, ...], prices: Mapping[str, Price], currency: str) -> Iterator[Row]:
    for call in calls:
        try:
            yield priced(_row(call, currency), prices)
        except LabError as error:
            raise InvalidValue(f"line {call.line} of the log fits no row of a ledger: {error}") from error


def _row(call: Call, currency: str) -> Row:
    provider, slash, _ = call.model.partition("/")
    usage = call.usage
    tokens: dict[str, Any] = {} if usage is None else {
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens, "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": "reported",
    }  # fmt: skip
    first = call.ttft if call.duration is None or call.ttft is None or call.ttft <= call.duration else None
    return Row(
        provider=provider if slash and provider else "unknown",
        outcome=call.status or "completed",
        request_model=call.model,
        finish_reasons=(call.finish,) if call.finish else (),
        cost=call.cost,
        currency=call.currency or currency,
        tenant=call.tenant,
        user=call.user,
        feature=call.feature,
        workflow=call.session,
        prompt_version=call.prompt_version,
        idempotency_key=call.request,
        attempt=max(1, call.attempt or 1),
        shadow=call.shadow,
        sent=call.at,
        first_token=None if call.at is None or first is None else call.at + first,
        done=None if call.at is None or call.duration is None else call.at + call.duration,
        started_unix=call.at,
        note=None if call.status else "the log does not say how it ended",
        attempt_id=str(call.line),
        **tokens,
    )
