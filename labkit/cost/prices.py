"""The price of tokens: rates, price lists, and prices that you define yourself.

Only text tokens are priced. Fees per search, per request and per hour of cache storage, and tokens of images and sound, are
not part of a `Price`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation

from labkit.request import InvalidValue, LabError

MTOK = Decimal(1_000_000)


class UnknownPrice(LabError, LookupError):
    """No price is known for this model."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in currency units per million tokens, by the disjoint kinds of token that a request is billed for.

    `cache_write` is the price for the provider's default cache lifetime (Anthropic: five minutes). `reasoning` is None where
    reasoning is billed as output, which is almost always so. Raises `InvalidValue` for money that is not a finite `Decimal`
    from 0.
    """

    fresh_input: Decimal
    visible_output: Decimal
    cached_input: Decimal
    cache_write: Decimal
    reasoning: Decimal | None = None

    def __post_init__(self) -> None:
        for name in ("fresh_input", "visible_output", "cached_input", "cache_write", "reasoning"):
            value = getattr(self, name)
            if name == "reasoning" and value is None:
                continue
            if not isinstance(value, Decimal):
                raise InvalidValue(f"rate {name} is {value!r}; write money as Decimal('…'), never as a float")
            if not value.is_finite() or value < 0:
                raise InvalidValue(f"rate {name} is {value} per million tokens; a price is a finite number from 0")

    def of(self, kind: str) -> Decimal:
        """The rate of one of `TOKEN_KINDS`."""
        rate: Decimal | None = getattr(self, kind)
        return self.visible_output if rate is None else rate


@dataclass(frozen=True, slots=True)
class Price:
    """The price list of one model.

    `tiers` holds pairs (input tokens above which the rates apply, rates), ascending; all tokens of a request are billed at
    the rates of the highest tier that it reaches. `batch` and `batch_tiers` are the same for batch processing; `batch` is
    None where it is not offered. `day` is () where the price does not depend on the hour. Where it does, `day` holds pairs
    (time of day in UTC from which the price holds, price), from midnight on. The other fields are then the price at one of
    these hours, which `as_of` names: use `at(moment)` for a request and `over_the_day()` for a month. Raises `InvalidValue`
    for tiers or times that are not ascending, and for batch tiers without `batch`.
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
    day: tuple[tuple[time, Price], ...] = ()

    def __post_init__(self) -> None:
        for name in ("tiers", "batch_tiers"):
            starts = [start for start, _ in getattr(self, name)]
            if any(start < 0 for start in starts) or starts != sorted(set(starts)):
                raise InvalidValue(f"{name} of {self.model} start at {starts}; list each start once, ascending from 0")
        if self.batch_tiers and self.batch is None:
            raise InvalidValue(f"{self.model} has batch_tiers but no batch rates below the first tier; give batch too")
        times = [start for start, _ in self.day]
        if times and (times[0] != time(0) or times != sorted(set(times)) or any(part.day for _, part in self.day)):
            raise InvalidValue(
                f"the day of {self.model} has prices from {', '.join(map(str, times))}; list each time once, ascending from "
                "00:00, with a price that has no day of its own"
            )

    def rates_for(self, input_tokens: int, batch: bool = False) -> Rates:
        """The rates at which a request of `input_tokens` (cached ones included) is billed.

        Raises `UnknownPrice` where `batch` is asked for and the list has no batch price.
        """
        if batch and self.batch is None:
            raise UnknownPrice(f"{self.provider} lists no batch price for {self.model}; price it without batch")
        chosen = self.batch if batch and self.batch is not None else self.rates
        for start, rates in self.batch_tiers if batch else self.tiers:
            if input_tokens > start:
                chosen = rates
        return chosen

    def at(self, moment: datetime) -> Price:
        """The price at the time of day of `moment`, which is taken as UTC if it has no time zone."""
        if not self.day:
            return self
        now = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).time()
        return replace(next(part for start, part in reversed(self.day) if start <= now), day=self.day)

    def over_the_day(self) -> Price:
        """The mean price for traffic that is the same at every hour: each price weighted by how long it holds."""
        if not self.day:
            return self
        starts = [_seconds(start) for start, _ in self.day]
        shares = [Decimal(end - start) / _DAY_S for start, end in zip(starts, [*starts[1:], _DAY_S], strict=True)]
        parts = [part for _, part in self.day]

        def mean(input_tokens: int, batch: bool = False) -> Rates:
            return _mean([part.rates_for(input_tokens, batch) for part in parts], shares)

        tiers = sorted({start for part in parts for start, _ in part.tiers})
        batch = all(part.batch is not None for part in parts)
        batch_tiers = sorted({start for part in parts for start, _ in part.batch_tiers}) if batch else []
        return replace(
            self,
            rates=mean(0),
            tiers=tuple((start, mean(start + 1)) for start in tiers),
            batch=mean(0, batch=True) if batch else None,
            batch_tiers=tuple((start, mean(start + 1, batch=True)) for start in batch_tiers),
            as_of=f"{self.as_of.partition(',')[0]}, mean over the hours of a day",
            day=(),
        )


_DAY_S = 24 * 3600


def _seconds(of_day: time) -> int:
    return (of_day.hour * 60 + of_day.minute) * 60 + of_day.second


def _mean(rates: list[Rates], shares: list[Decimal]) -> Rates:
    def amount(name: str) -> Decimal:
        return sum(
            (share * (getattr(one, name) or Decimal(0)) for one, share in zip(rates, shares, strict=True)), Decimal(0)
        )

    reasoning = None
    if any(one.reasoning is not None for one in rates):  # hours without one take the output price
        rates = [replace(one, reasoning=one.visible_output if one.reasoning is None else one.reasoning) for one in rates]
        reasoning = amount("reasoning")
    return Rates(**{f.name: amount(f.name) for f in fields(Rates) if f.name != "reasoning"}, reasoning=reasoning)


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
    """A price that you define yourself, per million tokens; cached and cache-write tokens cost as much as input by default.

    Amounts are text, `Decimal` or int. A float raises `InvalidValue`, because a float like 0.1 is not exactly the number
    that it prints as. A negative amount raises it, too.
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
        raise InvalidValue(f"{name} is {given!r}; write the price as text or Decimal, like '0.25', never as a float")
    try:
        return Decimal(given)
    except InvalidOperation:
        raise InvalidValue(f"{name} is {given!r}, which is no number; write the price like '0.25'") from None
