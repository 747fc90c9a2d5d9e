"""The lever that keeps the books: one row for every attempt that passes through it, however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from labkit.ledger.errors import LedgerError
from labkit.ledger.row import Outcome, Row, UsageSource, usage_fields
from labkit.ledger.store import Ledger
from labkit.request import Chunk, Done, Event, Handler, Request, Usage, clock

Price = Callable[[str, Usage], Decimal]
"""What an attempt costs: `price(model, usage)`, in the currency given to `booked`."""


def booked(
    inner: Handler,
    ledger: Ledger,
    *,
    provider: str,
    price: Price | None = None,
    currency: str = "USD",
    operation: str = "chat",
) -> Handler:
    """Book every attempt at `inner`: completed, cancelled or failed, one row each.

    A completed attempt's row is on the disk before its `Done` is handed on, so whoever has seen a `Done` can count on it.
    Where the `Done` has no cost yet, `price` sets it; then it travels on the `Done` as well. A stream that was cut short
    is booked with the engine's last running count plus the tokens of the chunks after it, or with the tokens of its
    chunks alone where the engine gave none (then the input is unknown and the cost too: `usage_source` is "counted").

    Place it right around what is paid for: inside a retry, so that each attempt gets a row, around an engine or a cache.
    Two of them in one path book twice.

    If the row cannot be kept, `LedgerError` is raised with the row in it, in place of the `Done` or of the error that
    ended the stream (its cause). If `price` fails, the attempt is booked without a cost; then that error goes on, or a
    note of it on the error that ended the stream.

    The row is written on the event loop's own thread: on a local disk, handing rows to other threads takes longer than
    the commits themselves (`benchmarks/ledger_overhead.py`), and virtual time cannot model a thread.
    """

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        # Made first: a request that could not be booked must not cost anything.
        arrived = _Arrived(_opening(request, provider, currency, operation))
        booked_already = False
        try:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        arrived.note(event)
                    elif not booked_already:
                        booked_already = True
                        event = _book_done(arrived, event, ledger, price, currency)
                    yield event
            if not booked_already:
                # A stream without a Done is passed on as it is, and `complete` refuses it; it was paid for all the same.
                booked_already = True
                _book_cut(arrived, "failed", "StreamIncomplete", ledger, price)
        except BaseException as error:
            if not booked_already:
                outcome: Outcome = "failed" if isinstance(error, Exception) else "cancelled"
                try:
                    _book_cut(arrived, outcome, _error_type(error) if outcome == "failed" else None, ledger, price)
                except LedgerError as unkept:
                    raise unkept from error
                except Exception as unpriced:  # noqa: BLE001 - what ended the stream matters more than its price
                    error.add_note(f"the attempt is booked without a cost: {unpriced!r}")
            raise

    return handle


@dataclass(slots=True)
class _Arrived:
    """What is known of an attempt while its stream runs."""

    opening: Row
    running: Usage | None = None
    tokens_since: int = 0
    first_token: float | None = None
    last_token: float | None = None

    def note(self, chunk: Chunk) -> None:
        if chunk.text or chunk.reasoning:
            self.last_token = chunk.at
            if self.first_token is None:
                self.first_token = chunk.at
        if chunk.usage is None:
            self.tokens_since += chunk.tokens
        else:
            self.running, self.tokens_since = chunk.usage, 0

    def usage(self) -> dict[str, Any]:
        if self.running is not None:
            return usage_fields(self.running + Usage(output_tokens=self.tokens_since), "running")
        source: UsageSource = "counted" if self.tokens_since else "unknown"
        return {"output_tokens": self.tokens_since or None, "usage_source": source}


def _opening(request: Request, provider: str, currency: str, operation: str) -> Row:
    return Row(
        provider=provider,
        operation=operation,
        request_model=request.model,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        currency=currency,
        tenant=request.tenant,
        user=request.user,
        feature=request.feature,
        workflow=request.workflow,
        idempotency_key=request.idempotency_key,
        attempt=request.attempt,
        shadow=request.shadow,
        sent=clock.now(),
        started_unix=clock.unix_now(),
    )


def _book_done(arrived: _Arrived, done: Done, ledger: Ledger, price: Price | None, currency: str) -> Done:
    timing = done.timing
    row = replace(
        arrived.opening,
        outcome="completed",
        response_model=done.model or None,
        response_id=done.response_id or None,
        finish_reasons=(done.finish_reason,),
        route=done.route,
        sent=timing.sent,
        first_token=timing.first_token,
        last_token=timing.last_token,
        done=timing.done,
        started_unix=arrived.opening.started_unix if timing.started_unix is None else timing.started_unix,
        cost=done.cost,
        currency=currency if done.cost is None else done.currency,
        **usage_fields(done.usage, "reported"),
    )
    if done.cost is not None or price is None:
        ledger.append(row)
        return done
    priced = _append_priced(row, done.model or row.request_model, done.usage, ledger, price)
    return replace(done, cost=priced, currency=currency)


def _book_cut(arrived: _Arrived, outcome: Outcome, error_type: str | None, ledger: Ledger, price: Price | None) -> None:
    row = replace(
        arrived.opening,
        outcome=outcome,
        error_type=error_type,
        first_token=arrived.first_token,
        last_token=arrived.last_token,
        done=clock.now(),
        **arrived.usage(),
    )
    if price is None or row.usage_source != "running" or row.usage is None:
        ledger.append(row)
    else:
        _append_priced(row, row.request_model, row.usage, ledger, price)


def _append_priced(row: Row, model: str, usage: Usage, ledger: Ledger, price: Price) -> Decimal | None:
    """Book `row` with its price; where there is none, book it without one and let the price's error go on."""
    try:
        row = replace(row, cost=price(model, usage))
    except Exception:
        ledger.append(row)
        raise
    ledger.append(row)
    return row.cost


def _error_type(error: BaseException) -> str:
    """`error.type`: the HTTP status where there is one, else the name of the exception's class."""
    status = getattr(error, "status", None)
    return str(status) if isinstance(status, int) else type(error).__qualname__
