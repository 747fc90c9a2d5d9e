"""The portal's month as a value: which calls are made with how many tokens, how many GPUs are rented, what else is paid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from labkit.cost import MTOK, Price, UnknownPrice, host, price_named
from labkit.portal.gpus import fleet
from labkit.portal.traffic import HOURS_A_MONTH, PORTAL, Portal
from labkit.request import TOKEN_KINDS, InvalidValue


@dataclass(frozen=True, slots=True)
class Calls:
    """`calls` a month of a `feature` to a `model` ("provider/model"), with the mean `tokens` a call by kind (`TOKEN_KINDS`).

    `batch`: at the provider's batch price. Raises `InvalidValue` for counts below 0 and kinds that there are not.
    """

    feature: str
    model: str
    calls: float
    tokens: Mapping[str, float]
    batch: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.tokens) - set(TOKEN_KINDS)
        if unknown:
            raise InvalidValue(f"{sorted(unknown)} are no kinds of tokens; there are {', '.join(TOKEN_KINDS)}")
        for name, value in (("calls", self.calls), *self.tokens.items()):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidValue(f"{name} of {self.feature} is {value}; give a number from 0")

    @property
    def read(self) -> float:
        """Input tokens of a call, whatever cache they come from."""
        return sum(self.tokens.get(kind, 0.0) for kind in ("fresh_input", "cached_input", "cache_write"))

    @property
    def usd(self) -> Decimal:
        """USD a month: Σ over kinds of tokens × rate / 10⁶ × calls, to a billionth. `UnknownPrice` where none is listed."""
        rates = _price(self.model).rates_for(math.ceil(round(self.read, 6)), self.batch)
        per_token = {kind: float(rates.of(kind) / MTOK) for kind in self.tokens}
        return sum((exact(self.calls * count * per_token[kind]) for kind, count in self.tokens.items()), Decimal(0))


@dataclass(frozen=True, slots=True)
class Machines:
    """GPUs of `host` (a key of `labkit.cost.hosts()`) that a `feature` rents day and night; part of one is paid in full."""

    feature: str
    host: str
    gpus: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise InvalidValue(f"gpus of {self.feature} is {self.gpus}; give a number from 0")

    @property
    def rented(self) -> int:
        """Whole GPUs."""
        return math.ceil(round(self.gpus, 9))

    @property
    def usd(self) -> Decimal:
        """USD a month."""
        return self.rented * host(self.host).usd_per_hour * HOURS_A_MONTH


@dataclass(frozen=True, slots=True)
class Fee:
    """`usd` a month that a lever costs by itself, and for `what`."""

    feature: str
    what: str
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Month:
    """Everything that the portal pays for in a month. Changes make a new one from it (see `labkit.portal.changes`)."""

    calls: tuple[Calls, ...]
    machines: tuple[Machines, ...]
    extras: tuple[Fee, ...] = ()

    @property
    def usd(self) -> Decimal:
        """USD a month: the exact sum of its parts."""
        return sum((item.usd for item in self._items()), Decimal(0))

    def of(self, feature: str) -> Decimal:
        """USD a month of one feature."""
        return sum((item.usd for item in self._items() if item.feature == feature), Decimal(0))

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its features."""
        return tuple(dict.fromkeys(item.feature for item in self._items()))

    def asked(self, feature: str) -> float:
        """Calls a month of a feature, to all models together."""
        return sum(one.calls for one in self.calls if one.feature == feature)

    def _items(self) -> Iterable[Calls | Machines | Fee]:
        return (*self.calls, *self.machines, *self.extras)


def today(portal: Portal = PORTAL) -> Month:
    """The month with no lever pulled, as people run such a portal today.

    The desk and the summaries ask the large model at its list price, with a template whose first line changes with every
    request, so that no prefix is found again. The assistant's engine drops what was not used for longest and computes it
    again, as vLLM does by itself; its GPUs are counted for the busiest hour.
    """
    desk, bulk = portal.desk, portal.summaries
    asked = {"fresh_input": float(desk.input), "visible_output": float(desk.answer), "reasoning": float(desk.thinking)}
    summary = {"fresh_input": float(bulk.prompt), "visible_output": float(bulk.answer)}
    return Month(
        calls=(
            Calls("desk", desk.large, portal.questions * (1 + desk.retries), asked),
            Calls("summaries", desk.large, float(portal.bulk), summary),
        ),
        machines=(Machines("assistant", portal.assistant.host, fleet(portal).gpus),),
    )


@lru_cache
def _price(name: str) -> Price:
    price = price_named(name)
    if price.currency != "USD":
        raise UnknownPrice(f"{name} is listed in {price.currency}; the portal's month is in USD: take a price in USD")
    return price.over_the_day()


def exact(usd: float) -> Decimal:
    """Money to a billionth of a dollar, so that sums of it are exact."""
    return Decimal(usd).quantize(Decimal("1e-9"))
