"""List prices of providers, as the installed genai-prices package has them.

The package is never asked to update itself, so prices are those of its release and a run can be repeated. Its patterns match
some names to a different model than the name means; such names are refused, because a wrong price is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from labkit.cost.prices import Price, Rates, UnknownPrice


def price_of(model: str, provider: str | None = None, at: datetime | None = None) -> Price:
    """The list price of `model`, at time `at` (now by default), as genai-prices has it.

    A model that only reads, such as an embedding model, has an output price of 0. The `model` of the result is the
    catalogue's own name, so that a loose match (a dated name, an alias) can be seen. Where the price depends on the hour,
    the result is the price at the hour of `at`, and `Price.day` has the others.

    Raises `UnknownPrice` for a model that is not listed, with the closest names, and for a model that is not billed by
    tokens. It also raises for a version that the catalogue takes for an older model, and for a "latest" that it takes for a
    deprecated model or for one beside which it lists a newer model at another price.
    """
    moment = _moment(at)
    try:
        found_provider, found = _find(model, provider)
    except LookupError:
        where = f" of {provider!r}" if provider else ""
        raise UnknownPrice(
            f"no price for model {model!r}{where} in genai-prices {catalogue_version()}; {_hint(model, provider)}"
        ) from None
    price = _price(found_provider.id, found, moment)
    if price is None:
        raise UnknownPrice(
            f"{found_provider.id} bills {found.id} by something other than tokens; use self_defined() to price it"
        )
    _refuse_older(model, found_provider, found, price, moment)
    return price


def catalogue_version() -> str:
    """The version of the installed genai-prices release; the `source` of every list price names it."""
    return version("genai-prices")


def catalogue_date(at: datetime | None = None) -> date:
    """The date of the newest price change up to `at` that the installed release has; so its list is not older than this."""
    from genai_prices.types import StartDateConstraint

    last = _moment(at).date()
    newest: date = max(
        entry.constraint.start_date
        for provider in _snapshot().providers
        for model in provider.models
        for entry in (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ()))
        if isinstance(entry.constraint, StartDateConstraint) and entry.constraint.start_date <= last
    )
    return newest


def listed(provider: str | None = None, at: datetime | None = None) -> Iterator[Price]:
    """The prices, at time `at`, of all models with a price for input and output tokens, except deprecated ones.

    Raises `UnknownPrice` for a provider that is not in the catalogue.
    """
    moment = _moment(at)
    providers = _snapshot().providers
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
    """Output price divided by input price, by model, for the provider's models that charge for both; raises as `listed`."""
    return {
        p.model: p.rates.visible_output / p.rates.fresh_input
        for p in listed(provider, at)
        if p.rates.fresh_input > 0 and p.rates.visible_output > 0
    }


def _moment(at: datetime | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _snapshot() -> Any:
    from genai_prices.data_snapshot import get_snapshot  # not above: it takes longer to import than the rest of this room

    return get_snapshot()


def _find(model: str, provider: str | None) -> tuple[Any, Any]:
    """The catalogue's provider and model; raises LookupError."""
    snapshot = _snapshot()
    found = snapshot.find_provider(model, provider, None)
    # The catalogue finds models by pattern, and some names of its models match the pattern of another model, or none.
    for one in found.models:
        if one.id == model:
            return found, one
    matched: tuple[Any, Any] = snapshot.find_provider_model(model, None, provider, None)
    return matched


def _hint(model: str, provider: str | None) -> str:
    """A hint for the error message: which model or provider to ask for instead of one that was not found."""
    providers = _snapshot().providers
    elsewhere = [p.id for p in providers if any(m.id == model for m in p.models)]
    if elsewhere:
        return f"this model is listed by {', '.join(elsewhere)}; name one of them as its provider"
    names = dict.fromkeys(m.id for p in providers if provider in (None, p.id) for m in p.models)
    near = get_close_matches(model, names, 4)
    return f"did you mean {', '.join(near)}?" if near else "see labkit.cost.listed() for every name, or use self_defined()"


def _refuse_older(name: str, provider: Any, found: Any, price: Price, at: datetime) -> None:
    """Raise `UnknownPrice` where `found` may be an older model than the one that `name` means today."""
    if name == found.id:
        return
    if not _is_whole_match(found.match, name.lower()):
        raise UnknownPrice(
            f"genai-prices {catalogue_version()} does not know {name!r} and takes it for {found.id!r}, which ends in its "
            "number; use self_defined() to price it"
        )
    words, numbers = _words_and_numbers(name)
    if "latest" not in words:
        return
    family = words - {"latest"}
    current = _words_and_numbers(found.id)[1]
    release = f"genai-prices {catalogue_version()} takes it for {found.id!r}"
    if found.deprecated:
        raise UnknownPrice(
            f"{name!r} means the newest model, but {release}, a deprecated one; name the model that is billed"
        )
    newer = []
    for model in provider.models:
        its_words, its_numbers = _words_and_numbers(model.id)
        same_family = its_words - {"preview"} == family and its_numbers[: len(numbers)] == numbers
        if model is found or model.deprecated or not same_family or _is_older(its_numbers, current):
            continue
        other = _price(provider.id, model, at)
        if other is not None and (other.rates, other.tiers) != (price.rates, price.tiers):
            newer.append(model.id)
    if newer:
        raise UnknownPrice(
            f"{name!r} means the newest model, but {release} at {price.rates.fresh_input} and "
            f"{price.rates.visible_output}, and lists {', '.join(newer)} at other prices; name the model that is billed"
        )


def _is_whole_match(match: Any, name: str) -> bool:
    """Whether a pattern of the catalogue matches `name` without ending inside a number.

    "claude-opus-4-1" ends inside the number of "claude-opus-4-10", so this is no whole match. A pattern that ends with a
    year is accepted, because a month and a day follow it. A name that matches no pattern as written was rewritten by the
    catalogue itself, and is accepted.
    """
    if not match.is_match(name):
        return True
    for parts in ("or_", "and_"):
        if hasattr(match, parts):
            return any(_is_whole_match(part, name) for part in getattr(match, parts) if part.is_match(name))
    start = getattr(match, "starts_with", None) or getattr(match, "contains", None)
    if start is None or re.search(r"20\d\d$|\D$", start):
        return True
    return not re.search(re.escape(start.lower()) + r"\d", name)


def _words_and_numbers(name: str) -> tuple[frozenset[str], tuple[int, ...]]:
    """The words and numbers of a model's name, without its provider.

    "gemini-2.5-flash-latest" has the words gemini, flash, latest and the numbers 2, 5.
    """
    parts = re.split(r"[-_.:@ ]+", name.lower().rpartition("/")[2])
    numbers = tuple(int(part.removeprefix("v")) for part in parts if re.fullmatch(r"v?\d+", part))
    return frozenset(part for part in parts if not re.fullmatch(r"v?\d+", part)), numbers


def _is_older(numbers: tuple[int, ...], than: tuple[int, ...]) -> bool:
    """Whether a version is certainly older; False where versions (3.5) and dates (2512) would have to be compared."""
    if any((a >= 100) != (b >= 100) for a, b in zip(numbers, than, strict=False)):
        return False
    return numbers < than


def _price(provider: str, model: Any, at: datetime) -> Price | None:
    price = _price_at(provider, model, at)
    turns = _turns(model)
    if price is None or not turns:
        return price
    day = [(turn, _price_at(provider, model, datetime.combine(at.date(), turn, UTC))) for turn in turns]
    changes = [(turn, part) for i, (turn, part) in enumerate(day) if part is not None and (i == 0 or part != day[i - 1][1])]
    if len(changes) < 2:
        return price
    ends = [*(f"{turn:%H:%M}" for turn, _ in changes[1:]), "24:00"]
    named = [
        (turn, replace(part, as_of=f"{part.as_of}, {turn:%H:%M} to {end} UTC"))
        for (turn, part), end in zip(changes, ends, strict=True)
    ]
    return replace(price, day=tuple(named)).at(at)


def _turns(model: Any) -> list[time]:
    """The times of day, in UTC, at which a price may change; [] where no price depends on the hour."""
    from genai_prices.types import TimeOfDateConstraint

    conditions = (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ()))
    clocks = [entry.constraint for entry in conditions if isinstance(entry.constraint, TimeOfDateConstraint)]
    turns = {_utc(moment) for clock in clocks for moment in (clock.start_time, clock.end_time)}
    return sorted({time(0), *turns}) if turns else []


def _utc(of_day: time) -> time:
    if of_day.tzinfo is None:
        return of_day
    return datetime.combine(date(2000, 1, 1), of_day).astimezone(UTC).time()


def _price_at(provider: str, model: Any, at: datetime) -> Price | None:
    standard = model.get_prices(at)
    if standard.input_mtok is None:
        return None
    bills_other_output = any(name.startswith("output_") and value is not None for name, value in vars(standard).items())
    if standard.output_mtok is None and bills_other_output:
        return None
    base, tiers = _rates(standard)
    batch: Rates | None = None
    batch_tiers: tuple[tuple[int, Rates], ...] = ()
    # A batch price needs a batch variant in force: without one, get_prices would silently return the standard price.
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
    from genai_prices.types import TieredPrices

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
