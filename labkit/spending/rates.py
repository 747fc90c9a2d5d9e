"""Price lists by model, as `labkit.ledger.Booked` takes them: the one of an attempt, and all of them as rows for SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, time

from labkit.cost import Cost, Price, Rates, price_request
from labkit.ledger import ANY_MODEL, Row
from labkit.request import TOKEN_KINDS, InvalidValue

_DAY_S = 24 * 3600
_NO_LIMIT = 2**62


def check_prices(prices: Mapping[str, Price]) -> None:
    """Raise `InvalidValue` for what does not map models to price lists."""
    for name, price in prices.items():
        if not isinstance(name, str) or not isinstance(price, Price):
            raise InvalidValue(f"prices[{name!r:.60}] is a {type(price).__name__}; map model names to labkit.cost.Price")


def priced(row: Row, prices: Mapping[str, Price]) -> Row:
    """`row` with what its tokens cost by `prices`, in the list's currency.

    As it is where it has a cost already, and where its tokens, or a price for its model, are unknown: then it is unpriced.
    """
    if row.cost is not None or row.usage is None or row.input_tokens is None or row.output_tokens is None:
        return row
    price = _price(prices, row.request_model, row.response_model or "")
    if price is None:
        return row
    now = price.at(datetime.fromtimestamp(row.started_unix or 0, UTC))
    return replace(row, cost=price_request(row.usage, now).total, currency=now.currency)


def by_kind(row: Row, prices: Mapping[str, Price]) -> Cost | None:
    """What each kind of the row's tokens cost by `prices`; None where they do not give just the cost that was booked."""
    listed = priced(replace(row, cost=None), prices)
    price = _price(prices, row.request_model, row.response_model or "")
    if row.cost is None or row.usage is None or price is None or (listed.cost, listed.currency) != (row.cost, row.currency):
        return None
    return price_request(row.usage, price.at(datetime.fromtimestamp(row.started_unix or 0, UTC)))


def rates_for(prices: Mapping[str, Price], models: Iterable[tuple[str, str, str]]) -> tuple[list[Rates], str]:
    """The rates in force, and as JSON where each of them is: models, currency, input tokens, seconds of the day.

    `models` are the model asked for, the one that answered, and the currency, each once. A price is found as `Booked` finds
    it: by the model asked for, else by the one that answered, else by "*"; at the tier of the attempt's input tokens and at
    the hour in which it started.
    """
    found: list[Rates] = []
    rows: list[list[object]] = []
    for asked, answered, currency in models:
        price = _price(prices, asked, answered)
        if price is None:
            continue
        for start_s, end_s, at_hour in _hours(price):
            if at_hour.currency != currency:
                continue
            starts = [-1, *(start for start, _ in at_hour.tiers)]
            for above, below in zip(starts, [*starts[1:], _NO_LIMIT], strict=True):
                rates = at_hour.rates_for(above + 1)
                amounts = [float(rates.of(kind)) / 1e6 for kind in TOKEN_KINDS]
                rows.append([len(found), asked, answered, currency, above, below, start_s, end_s, *amounts])
                found.append(rates)
    return found, json.dumps(rows)


def _price(prices: Mapping[str, Price], *names: str) -> Price | None:
    return next((prices[name] for name in (*names, ANY_MODEL) if name and name in prices), None)


def _hours(price: Price) -> list[tuple[int, int, Price]]:
    """The price from one second of the day (UTC) to before another."""
    parts = price.day or ((time(0), price),)
    starts = [start.hour * 3600 + start.minute * 60 + start.second for start, _ in parts]
    return [(start, end, one) for start, end, (_, one) in zip(starts, [*starts[1:], _DAY_S], parts, strict=True)]
