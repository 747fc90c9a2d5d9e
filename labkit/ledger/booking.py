"""The lever that writes the ledger: one row for every attempt in its stack, however it ends."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from labkit.cost import Price, price_request
from labkit.ledger.row import Row, usage_fields
from labkit.ledger.store import Ledger
from labkit.request import (
    Arrived,
    Books,
    Chooser,
    Done,
    Event,
    Handler,
    InvalidValue,
    LabError,
    Lever,
    Placed,
    Request,
    Usage,
    clock,
    joined,
)

ANY_MODEL = "*"
"""The name, in a price list, for all models that have no price of their own."""
_UNKEPT = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Booked(Lever):
    """Books every attempt in its stack: completed, cancelled, failed or served by a cache, one row each.

    It may stand anywhere in the stack. Whoever computes an answer (an engine) or serves one (a cache) records the attempt,
    once for each ledger; levers that only forward record nothing. With two ledgers in one stack, each has every attempt.

    `prices` maps a model's name to its price list; the name "*" stands for all models without one. The name that counts is
    the one in the request (or a router's own name for the model); if it has no price, the one that the engine answers with.
    Every model that a chooser in the stack can choose must have a price, or none may: otherwise `InvalidValue` is raised
    when the stack is built. The price is also set on the `Done`, in the list's own currency. If it depends on the hour, the
    hour of the request counts. `provider` goes into the rows; if it is empty, the price list's provider does, else
    "unknown".

    The row of a completed attempt is on the disk before its `Done` is handed on, so whoever has seen a `Done` can count on
    its row. A stream that was cut short is booked with the engine's last running count plus the tokens of the chunks after
    it. If the engine gave no running count, it is booked with the tokens of its chunks alone; then the input and the cost
    are unknown, and `usage_source` is "counted".

    Bookkeeping never costs an answer. If the price or the ledger fails, the answer goes on, with the failure in
    `Done.faults`. The attempt is booked with what is known, and its `note` says what is missing. A row that could not be
    kept is tried again with the next one (the latest 10,000 such rows are remembered).

    The row is written on the event loop's own thread: on a local disk, handing rows to other threads takes longer than the
    commits themselves (`benchmarks/ledger_overhead.py`), and virtual time cannot model a thread. Raises `InvalidValue` for a
    ledger or prices of the wrong type.
    """

    ledger: Ledger
    prices: Mapping[str, Price] = field(default_factory=dict)
    provider: str = ""
    _book: _Book = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.ledger, Ledger):
            raise InvalidValue(f"Booked needs a Ledger, such as Ledger('books.db'); it got {self.ledger!r:.80}")
        if not isinstance(self.prices, Mapping):
            raise InvalidValue(
                f'prices maps model names to price lists, as in {{"small": price}} or {{"*": price}} for all; it is '
                f"{self.prices!r:.80}"
            )
        for name, price in self.prices.items():
            if not isinstance(name, str) or not isinstance(price, Price):
                raise InvalidValue(f"prices[{name!r}] is {price!r:.80}; map a model's name to a labkit.cost.Price")
        object.__setattr__(self, "prices", dict(self.prices))
        object.__setattr__(self, "_book", _Book(self.ledger, self.prices, self.provider))

    @property
    def books(self) -> Books:
        """The books in which its stack records attempts."""
        return self._book

    def over(self, inner: Handler) -> Handler:
        """`inner`, with these books added to every request to it. Raises `InvalidValue` if a model has no price."""
        self._check_prices(inner)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async with aclosing(inner(replace(request, books=joined(request.books, (self._book,))))) as events:
                async for event in events:
                    yield event

        return handle

    def _check_prices(self, inner: Handler) -> None:
        if not self.prices or ANY_MODEL in self.prices:
            return
        missing = [
            name for name, model in _models(inner, "") if name and name not in self.prices and model not in self.prices
        ]
        if missing:
            raise InvalidValue(
                f"the price list has no {', '.join(dict.fromkeys(missing))}; it has {', '.join(self.prices)}. Add the "
                f'models that the stack can choose, or "{ANY_MODEL}" for all others'
            )


def _models(handler: object, name: str) -> Iterator[tuple[str, str]]:
    """The engines of a stack: for each, the name by which requests reach it ("" if that is open), and its own model name."""
    if not isinstance(handler, Placed):
        engine = getattr(handler, "inner", handler)
        yield name, str(getattr(engine, "model", "") or "")
    elif isinstance(handler.inner, Mapping):
        renames = isinstance(handler.lever, Chooser) and handler.lever.renames
        for key, model in handler.inner.items():
            yield from _models(model, key if renames else name)
    else:
        yield from _models(handler.inner, name)


class _Book:
    """One ledger with its price list, and the rows that it could not keep yet."""

    def __init__(self, ledger: Ledger, prices: Mapping[str, Price], provider: str) -> None:
        self.ledger = ledger
        self.prices = prices
        self.provider = provider
        self.unkept: deque[Row] = deque(maxlen=_UNKEPT)
        self.name = f"memory-{id(ledger)}" if ledger.in_memory else ledger.path

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.name,))

    def open(self, request: Request, model: str) -> _Page:
        asked = request.model or model
        price = self.price(asked, model)
        opening = Row(
            provider=self.provider or (price.provider if price else "") or "unknown",
            request_model=asked,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            currency=price.currency if price else next((p.currency for p in self.prices.values()), "USD"),
            tenant=request.tenant,
            user=request.user,
            feature=request.feature,
            workflow=request.workflow,
            prompt_version=request.prompt_version,
            idempotency_key=request.idempotency_key,
            attempt=request.attempt,
            shadow=request.shadow,
            sent=clock.now(),
            started_unix=clock.unix_now(),
        )
        return _Page(self, opening, model)

    def price(self, *names: str) -> Price | None:
        """The price list of the first of `names` that has one, else that of `ANY_MODEL`, else None."""
        return next((self.prices[name] for name in (*names, ANY_MODEL) if name and name in self.prices), None)

    def keep(self, row: Row) -> LabError | None:
        """Append `row`, and rows left over from before. If that fails, return the error; the rows wait for the next call."""
        try:
            self.ledger.extend((*self.unkept, row))
        except LabError as error:
            self.unkept.append(row)
            _log.warning("%s; the row is kept in memory and tried again with the next one", error)
            return error
        self.unkept.clear()
        return None


class _Page:
    """The record of one attempt, from the moment before anything is paid for until its row is written."""

    def __init__(self, book: _Book, opening: Row, model: str) -> None:
        self._book = book
        self._opening = opening
        self._model = model

    def completed(self, arrived: Arrived, done: Done) -> Done:
        if self._book.name in done.booked:
            return done  # already booked here, by a stack that this handler asked with a request without books
        try:
            return self._completed(arrived, done)
        except Exception as error:  # noqa: BLE001 - a Done may hold anything; the answer was still paid for
            row = _with_note(replace(self._opening, outcome="completed"), [f"its end could not be read: {error!r:.200}"])
            self._book.keep(row)
            return replace(done.beside("booked", error), booked=(*done.booked, self._book.name))

    def _completed(self, arrived: Arrived, done: Done) -> Done:
        timing = done.timing
        why: list[str] = []
        faults: list[Exception] = []
        cost, currency = done.cost, done.currency
        if done.usage_note:
            why.append(done.usage_note)
        elif cost is None:
            cost, currency = self._priced(done.model, done.usage, why, faults)
        price = self._book.price(self._opening.request_model, str(done.model), self._model)
        row = _as_known(
            self._opening,
            why,
            [
                {"outcome": "completed"},
                {"provider": self._book.provider or (price.provider if price else "") or "unknown"},
                {"response_model": done.model or None},
                {"response_id": done.response_id or None},
                {"finish_reasons": (done.finish_reason,)},
                {"route": done.route},
                {"sent": timing.sent},
                {"first_token": timing.first_token, "last_token": timing.last_token},
                {"done": timing.done},
                {} if timing.started_unix is None else {"started_unix": timing.started_unix},
                _fields_of(done),
                {"cost": cost, "currency": currency},
            ],
        )
        if row.usage is None and arrived.source != "unknown":
            row = _as_known(row, why, [_counted(arrived)])
        unkept = self._book.keep(_with_note(row, why))
        faults += [] if unkept is None else [unkept]
        for fault in faults:
            done = done.beside("booked", fault)
        if done.cost is None and row.cost is not None:
            done = replace(done, cost=row.cost, currency=row.currency)
        return replace(done, booked=(*done.booked, self._book.name))

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        failed = error is None or isinstance(error, Exception)
        why: list[str] = []
        cost: Decimal | None = None
        currency = self._opening.currency
        if served:
            cost = Decimal(0)
        elif arrived.source == "running":
            cost, currency = self._priced("", arrived.usage, why, [])
        row = _as_known(
            self._opening,
            why,
            [
                {"outcome": "failed" if failed else "cancelled"},
                {"error_type": _error_type(error) if failed else None},
                {"first_token": arrived.first_token, "last_token": arrived.last_token},
                {"done": clock.now()},
                {} if arrived.source == "unknown" else _counted(arrived),
                {"cost": cost, "currency": currency},
            ],
        )
        unkept = self._book.keep(_with_note(row, why))
        if unkept is not None and error is not None:
            error.add_note(f"and its attempt is not in the books yet: {unkept}")

    def _priced(self, answered_by: str, usage: Usage, why: list[str], faults: list[Exception]) -> tuple[Decimal | None, str]:
        """The cost and its currency. If the cost is not known, it is None, and `why` gets the reason."""
        currency = self._opening.currency
        if not self._book.prices:
            return None, currency
        try:
            price = self._book.price(self._opening.request_model, answered_by, self._model)
            if price is None:
                names = dict.fromkeys(name for name in (self._opening.request_model, answered_by) if name)
                why.append(f"no price for {' or '.join(names) or 'a model without a name'}")
                return None, currency
            moment = datetime.fromtimestamp(self._opening.started_unix or 0.0, UTC)
            return price_request(usage, price.at(moment)).total, price.currency
        except Exception as error:  # noqa: BLE001 - whatever a price raises, the answer was paid for
            faults.append(error)
            why.append(f"the price failed: {error!r:.200}")
            return None, currency


def _fields_of(done: Done) -> dict[str, Any]:
    """The usage of a whole answer as columns; counts that the endpoint did not report are unknown, not 0."""
    found = usage_fields(done.usage, "counted" if done.usage_note else "reported")
    return {name: value or None for name, value in found.items()} if done.usage_note else found


def _counted(arrived: Arrived) -> dict[str, Any]:
    """The usage of a stream as far as it came; without a running count, its input is unknown."""
    if arrived.source == "running":
        return usage_fields(arrived.usage, "running")
    return {"output_tokens": arrived.usage.output_tokens, "usage_source": "counted"}


def _as_known(row: Row, why: list[str], parts: list[dict[str, Any]]) -> Row:
    """`row` with `parts`; a part that cannot be booked is left out, and `why` gets the reason."""
    try:
        return replace(row, **{name: value for part in parts for name, value in part.items()})
    except LabError:
        for part in parts:
            try:
                row = replace(row, **part)
            except LabError as error:
                why.append(f"{error!s:.200}")
        return row


def _with_note(row: Row, why: list[str]) -> Row:
    return replace(row, note="; ".join(why)[:1000]) if why else row


def _error_type(error: BaseException | None) -> str:
    """The value of `error.type`: the HTTP status if there is one, else the name of the exception's class."""
    if error is None:
        return "StreamIncomplete"
    status = getattr(error, "status", None)
    return str(status) if isinstance(status, int) else type(error).__qualname__
