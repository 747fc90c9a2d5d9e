"""What a token costs: list prices of providers, and prices of one's own.

Provider prices come from the genai-prices package as installed; it is never asked to update itself, so a price has the
date of a release and a run can be repeated. Only tokens of text are priced: fees per search, per request, per hour of cache
storage, and tokens of images and sound are not part of a `Price`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import StartDateConstraint, TieredPrices

from labkit.request import InvalidRequest, LabError

MTOK = Decimal(1_000_000)


class UnknownPrice(LabError, LookupError):
    """No price is known for this model."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in currency units per million tokens, by the disjoint kinds of token a request is billed for.

    `cache_write` is the price of the provider's default lifetime (Anthropic: five minutes). `reasoning` is None where
    reasoning is billed as output, which is nearly everywhere.
    """

    input: Decimal
    output: Decimal
    cached: Decimal
    cache_write: Decimal
    reasoning: Decimal | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached", "cache_write", "reasoning"):
            value = getattr(self, name)
            if name == "reasoning" and value is None:
                continue
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

    def __post_init__(self) -> None:
        for name in ("tiers", "batch_tiers"):
            starts = [start for start, _ in getattr(self, name)]
            if any(start < 0 for start in starts) or starts != sorted(set(starts)):
                raise InvalidRequest(f"{name} of {self.model} start at {starts}; list each start once, ascending from 0")
        if self.batch_tiers and self.batch is None:
            raise InvalidRequest(f"{self.model} has batch_tiers but no batch rates below the first tier; give batch too")

    def rates_for(self, input_tokens: int, batch: bool = False) -> Rates:
        """The rates a request of `input_tokens` (cached ones included) is billed at.

        Raises `UnknownPrice` when `batch` is asked for and none is offered.
        """
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
    """A price of one's own, per million tokens; cached and cache-write tokens cost as much as input unless said.

    Amounts are text or `Decimal`: a float like 0.1 is not the number it prints as.
    """
    rate = _amount("input", input)
    rates = Rates(
        rate,
        _amount("output", output),
        rate if cached is None else _amount("cached", cached),
        rate if cache_write is None else _amount("cache_write", cache_write),
    )
    return Price(model, provider, rates, source, as_of)


def _amount(name: str, given: object) -> Decimal:
    if not isinstance(given, str | Decimal | int) or isinstance(given, bool):
        raise InvalidRequest(f"{name} is {given!r}; write the price as text or Decimal, like '0.25', never as a float")
    try:
        return Decimal(given)
    except InvalidOperation:
        raise InvalidRequest(f"{name} is {given!r}, which is no number; write the price like '0.25'") from None


def price_of(model: str, provider: str | None = None, at: datetime | None = None) -> Price:
    """The list price of `model`, at time `at` (now by default), as genai-prices has it.

    A model that only reads, such as an embedding model, has an output price of 0. The `model` of the result is the
    catalogue's own name, so that a loose match (a dated name, an alias) can be seen.
    Raises `UnknownPrice` with the closest names for a model that is not listed or has no token price.
    """
    try:
        found_provider, found = _find(model, provider)
    except LookupError:
        where = f" of {provider!r}" if provider else ""
        raise UnknownPrice(
            f"no price for model {model!r}{where} in genai-prices {catalogue_version()}; {_hint(model, provider)}"
        ) from None
    price = _price(found_provider.id, found, _moment(at))
    if price is None:
        raise UnknownPrice(
            f"{found_provider.id} bills {found.id} by something other than tokens; use self_defined() to price it"
        )
    return price


def catalogue_version() -> str:
    """Version of the installed genai-prices release: the date line of every list price."""
    return version("genai-prices")


def catalogue_date(at: datetime | None = None) -> date:
    """Date of the newest price change, up to `at`, that the installed release knows: its list is at least as fresh."""
    last = _moment(at).date()
    newest: date = max(
        entry.constraint.start_date
        for provider in get_snapshot().providers
        for model in provider.models
        for entry in (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ()))
        if isinstance(entry.constraint, StartDateConstraint) and entry.constraint.start_date <= last
    )
    return newest


def listed(provider: str | None = None, at: datetime | None = None) -> Iterator[Price]:
    """Every model with a price for input and for output tokens; deprecated ones are left out.

    Raises `UnknownPrice` for a provider that is not in the catalogue.
    """
    moment = _moment(at)
    providers = get_snapshot().providers
    known = [found.id for found in providers]
    if provider is not None and provider not in known:
        near = get_close_matches(provider, known) or known
        raise UnknownPrice(f"genai-prices {catalogue_version()} has no provider {provider!r}; there are {', '.join(near)}")
    for found in providers:
        if provider in (None, found.id):
            for model in found.models:
                if not model.deprecated and model.get_prices(moment).output_mtok is not None:
                    price = _price(found.id, model, moment)
                    if price is not None:
                        yield price


def output_input_ratio(provider: str, at: datetime | None = None) -> dict[str, Decimal]:
    """Output price over input price, by model, of the provider's models that charge for both."""
    return {
        p.model: p.rates.output / p.rates.input for p in listed(provider, at) if p.rates.input > 0 and p.rates.output > 0
    }


def _moment(at: datetime | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _find(model: str, provider: str | None) -> tuple[Any, Any]:
    """The catalogue's provider and model; raises LookupError."""
    snapshot = get_snapshot()
    found = snapshot.find_provider(model, provider, None)
    # The catalogue finds models by pattern, and some of its own names match another model's pattern, or none.
    for one in found.models:
        if one.id == model:
            return found, one
    matched: tuple[Any, Any] = snapshot.find_provider_model(model, None, provider, None)
    return matched


def _hint(model: str, provider: str | None) -> str:
    """What to ask for instead of a model that was not found."""
    providers = get_snapshot().providers
    elsewhere = [p.id for p in providers if any(m.id == model for m in p.models)]
    if elsewhere:
        return f"this model is listed by {', '.join(elsewhere)}; name one of them as its provider"
    names = dict.fromkeys(m.id for p in providers if provider in (None, p.id) for m in p.models)
    near = get_close_matches(model, names, 4)
    return f"did you mean {', '.join(near)}?" if near else "see labkit.cost.listed() for every name, or use self_defined()"


def _price(provider: str, model: Any, at: datetime) -> Price | None:
    standard = model.get_prices(at)
    if standard.input_mtok is None:
        return None
    bills_other_output = any(name.startswith("output_") and value is not None for name, value in vars(standard).items())
    if standard.output_mtok is None and bills_other_output:
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
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok")
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
        fresh, output, cached, write, reasoning = amounts
        return Rates(
            fresh,
            Decimal(0) if output is None else output,
            fresh if cached is None else cached,
            fresh if write is None else write,
            reasoning,
        )

    starts = sorted({tier.start for value in found if isinstance(value, TieredPrices) for tier in value.tiers})
    return at(0), tuple((start, at(start + 1)) for start in starts)
