"""What a token costs: list prices of providers, and prices of one's own.

Provider prices come from the genai-prices package as installed; it is never asked to update itself, so a price has the
date of a release and a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from labkit.request import InvalidRequest, LabError

MTOK = Decimal(1_000_000)


class UnknownPrice(LabError, LookupError):
    """No price is known for this model."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in currency units per million tokens, by the disjoint kinds of token a request is billed for."""

    input: Decimal
    output: Decimal
    cached: Decimal
    cache_write: Decimal

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_write"):
            value = getattr(self, name)
            if not isinstance(value, Decimal):
                raise InvalidRequest(f"rate {name} is {value!r}; write money as Decimal('…'), never as a float")
            if not value.is_finite() or value < 0:
                raise InvalidRequest(f"rate {name} is {value} per million tokens; a price is a finite number from 0")


@dataclass(frozen=True, slots=True)
class Price:
    """The price list of one model.

    `tiers` holds (input tokens above which it applies, rates), ascending; a request is billed wholly at the rates of the
    highest tier it reaches. `batch` and `batch_tiers` are the same for batch processing, None where none is offered.
    """

    model: str
    provider: str
    rates: Rates
    source: str
    as_of: str
    tiers: tuple[tuple[int, Rates], ...] = ()
    batch: Rates | None = None
    batch_tiers: tuple[tuple[int, Rates], ...] = ()
    context_window: int | None = None
    currency: str = "USD"

    def rates_for(self, input_tokens: int, batch: bool = False) -> Rates:
        """The rates a request of `input_tokens` (cached ones included) is billed at."""
        if batch and self.batch is None:
            raise UnknownPrice(f"{self.provider} lists no batch price for {self.model}; price it without batch")
        chosen = self.batch if batch and self.batch is not None else self.rates
        for start, rates in self.batch_tiers if batch else self.tiers:
            if input_tokens > start:
                chosen = rates
        return chosen


def self_defined(
    model: str,
    input: str | Decimal,
    output: str | Decimal,
    cached: str | Decimal | None = None,
    cache_write: str | Decimal | None = None,
    source: str = "set by hand",
    as_of: str = "",
    provider: str = "own",
) -> Price:
    """A price of one's own, per million tokens; cached and cache-write tokens cost as much as input unless said."""
    rate = Decimal(input)
    rates = Rates(
        rate,
        Decimal(output),
        rate if cached is None else Decimal(cached),
        rate if cache_write is None else Decimal(cache_write),
    )
    return Price(model, provider, rates, source, as_of)


def price_of(model: str, provider: str | None = None, at: datetime | None = None) -> Price:
    """The list price of `model`, at time `at` (now by default), as genai-prices has it.

    Raises `UnknownPrice` with the closest names for a model that is not listed or has no token price.
    """
    snapshot = get_snapshot()
    try:
        found_provider, found = snapshot.find_provider_model(model, None, provider, None)
    except LookupError:
        near = get_close_matches(model, [m.id for p in snapshot.providers if provider in (None, p.id) for m in p.models], 4)
        where = f" of {provider!r}" if provider else ""
        hint = (
            f"did you mean {', '.join(near)}?" if near else "see labkit.cost.listed() for every name, or use self_defined()"
        )
        raise UnknownPrice(f"no price for model {model!r}{where} in genai-prices {catalogue_version()}; {hint}") from None
    price = _price(found_provider.id, found, at or datetime.now(UTC))
    if price is None:
        raise UnknownPrice(
            f"{found_provider.id} bills {found.id} by something other than tokens; use self_defined() to price it"
        )
    return price


def catalogue_version() -> str:
    """Version of the installed genai-prices release: the date line of every list price."""
    return version("genai-prices")


def listed(provider: str | None = None, at: datetime | None = None) -> Iterator[Price]:
    """Every token price in the catalogue, deprecated models left out."""
    moment = at or datetime.now(UTC)
    for found in get_snapshot().providers:
        if provider in (None, found.id):
            for model in found.models:
                price = None if model.deprecated else _price(found.id, model, moment)
                if price is not None:
                    yield price


def output_input_ratio(provider: str, at: datetime | None = None) -> dict[str, Decimal]:
    """Output price over input price, by model, of the provider's models that charge for both."""
    return {
        p.model: p.rates.output / p.rates.input for p in listed(provider, at) if p.rates.input > 0 and p.rates.output > 0
    }


def _price(provider: str, model: Any, at: datetime) -> Price | None:
    standard = model.get_prices(at)
    if standard.input_mtok is None or standard.output_mtok is None:
        return None
    base, tiers = _rates(standard)
    batch: Rates | None = None
    batch_tiers: tuple[tuple[int, Rates], ...] = ()
    # Only a variant that is in force makes a batch price; get_prices would fall back to the standard one silently.
    in_force = [v for v in model.price_variants or () if v.constraint is None or v.constraint.active(at)]
    if any(v.when == {"processing": "batch"} for v in in_force):
        batch, batch_tiers = _rates(model.get_prices(at, {"processing": "batch"}))
    return Price(
        model.id,
        provider,
        base,
        source=f"genai-prices {catalogue_version()}",
        as_of=at.date().isoformat(),
        tiers=tiers,
        batch=batch,
        batch_tiers=batch_tiers,
        context_window=model.context_window,
    )


def _rates(price: Any) -> tuple[Rates, tuple[tuple[int, Rates], ...]]:
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    found = [getattr(price, name) for name in names]

    def at(tokens: int) -> Rates:
        amounts = []
        for value in found:
            if isinstance(value, TieredPrices):
                amount = value.base
                for tier in value.tiers:
                    if tokens > tier.start:
                        amount = tier.price
                amounts.append(amount)
            else:
                amounts.append(value)
        # A provider that lists no cache price bills such tokens as plain input.
        fresh, output, cached, write = amounts
        return Rates(fresh, output, fresh if cached is None else cached, fresh if write is None else write)

    starts = sorted({tier.start for value in found if isinstance(value, TieredPrices) for tier in value.tiers})
    return at(0), tuple((start, at(start + 1)) for start in starts)
