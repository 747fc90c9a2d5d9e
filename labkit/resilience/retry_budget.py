"""How many attempts may be made again: budgets that many requests share, so that retries cannot outgrow the traffic.

A limit on the attempts of one request does not protect an engine that is down: each of the callers uses up its limit, and
the engine gets several times its usual load just when it can carry the least. A budget counts the retries of all
requests. The three here are two rules that are in wide use, and one in money:

- `Ratio`: Finagle's `RetryBudget` (com.twitter.finagle.service.RetryBudget). A share of the requests of the last seconds
  may be made again, and some retries a second beside them.
- `Quota`: the retry quota of botocore's standard mode (botocore.retries.standard.RetryQuotaChecker). A retry costs 5, one
  after a time-out 10; an answer gives back what its last retry cost, or 1 where it needed none.
- `Dollars`: a token bucket in US dollars. A retry reserves what it may cost at worst, and is settled at what it did cost.

Each budget is a value with settings. Its state is inside, and is shared by all levers that are given the same budget, as
with `labkit.routing.Breaker`: budgets with equal settings are equal, and yet each counts for itself. A budget has one
account for each group of requests; `by` names what makes a group, by default the tenant and the model that is asked. (A
retry that stands below a chooser is asked for the chosen model. One that stands above is asked for the model that the
caller named.)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Generic, Literal, Protocol, TypeVar, get_args, runtime_checkable

from labkit.cost import Price, price_request
from labkit.ledger import ANY_MODEL
from labkit.request import EngineError, EngineStalled, InvalidValue, Request, Usage, clock, is_whole
from labkit.resilience.attempted import Attempted

By = Literal["tenant", "user", "feature", "model"]
S = TypeVar("S")
PER_TENANT_AND_MODEL: tuple[By, ...] = ("tenant", "model")
_SLICES = 10
_TEMPLATE_TOKENS = 16
"""Tokens that a chat template may put around one message: more than any template of the lab's engines."""


class Allowance(Protocol):
    """One request's dealings with a retry budget. No method raises."""

    def take(self, error: Exception, /) -> bool:
        """Whether an attempt may be made again after `error`; if so, the budget is charged for it."""
        ...

    def put_back(self) -> None:
        """The attempt that was taken last is not made after all."""
        ...

    def ended(self, attempts: Sequence[Attempted]) -> None:
        """The attempt that was taken last has ended, in any way; `attempts` are those that it led to further in."""
        ...

    def answered(self) -> None:
        """The request has its answer."""
        ...


@runtime_checkable
class RetryBudget(Protocol):
    """A budget that the retries of many requests share."""

    def of(self, request: Request, *, first: bool) -> Allowance:
        """The dealings of `request`. `first` is False for a request that is a retry, or that this budget counts already."""
        ...

    @property
    def refused(self) -> int:
        """How many retries this budget has refused."""
        ...


class Accounts(Generic[S]):
    """The accounts of one budget by group, and its count of refusals.

    An account that is as good as new is forgotten when the number of accounts has doubled, so that the memory follows the
    groups that are active, not all that ever were.
    """

    def __init__(self, new: Callable[[], S], is_new: Callable[[S], bool]) -> None:
        self._new = new
        self._is_new = is_new
        self._by_group: dict[Hashable, S] = {}
        self._room = 64
        self.refused = 0

    def __len__(self) -> int:
        return len(self._by_group)

    def of(self, request: Request, by: tuple[By, ...]) -> S:
        """The account of the group that `request` is in."""
        group = tuple(getattr(request, name) for name in by)
        account = self._by_group.get(group)
        if account is None:
            if len(self._by_group) >= self._room:
                self._by_group = {name: kept for name, kept in self._by_group.items() if not self._is_new(kept)}
                self._room = max(64, 2 * len(self._by_group))
            account = self._by_group[group] = self._new()
        return account


@dataclass(frozen=True)
class Ratio:
    """Of the requests of the last `ttl_s` seconds, `share` may be made again, and `per_second` · `ttl_s` beside.

    Time is counted in tenths of `ttl_s`, as Finagle does. A retry counts for `ttl_s` seconds, like a request. Finagle's
    own settings are the default: 20 %, 10 a second, 10 s. Raises `InvalidValue` for settings that are negative or not
    finite, and for a `ttl_s` of 0.
    """

    share: float = 0.2
    per_second: float = 10.0
    ttl_s: float = 10.0
    by: tuple[By, ...] = PER_TENANT_AND_MODEL
    _accounts: Accounts[_Window] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_from_0("share", self.share)
        check_from_0("per_second", self.per_second)
        check_from_0("ttl_s", self.ttl_s)
        if self.ttl_s == 0:
            raise InvalidValue("ttl_s is 0; requests must count for some time, such as 10 s")
        object.__setattr__(self, "by", groups(self.by))
        object.__setattr__(self, "_accounts", Accounts(lambda: _Window(self.ttl_s / _SLICES), _Window.is_empty))

    @property
    def refused(self) -> int:
        """How many retries this budget has refused."""
        return self._accounts.refused

    def of(self, request: Request, *, first: bool) -> Allowance:
        """The dealings of `request`, which counts from now on if it is `first`."""
        window = self._accounts.of(request, self.by)
        if first:
            window.note(requests=1)
        return _RatioAllowance(self, window)

    def left(self, request: Request) -> int:
        """How many attempts may be made again now, in the group of `request`."""
        return max(0, math.floor(self._balance(self._accounts.of(request, self.by)) + 1e-9))

    def _balance(self, window: _Window) -> float:
        requests, retries = window.sums()
        return self.share * requests + self.per_second * self.ttl_s - retries


@dataclass(slots=True, eq=False)
class _Slice:
    number: int
    requests: int = 0
    retries: int = 0


@dataclass(slots=True, eq=False)
class _Window:
    """The requests and retries of the last ten slices of time, the present one included."""

    slice_s: float
    slices: deque[_Slice] = field(default_factory=deque)

    def note(self, *, requests: int = 0, retries: int = 0) -> _Slice:
        now = math.floor(clock.now() / self.slice_s)
        if not self.slices or self.slices[-1].number != now:
            self.slices.append(_Slice(now))
        latest = self.slices[-1]
        latest.requests += requests
        latest.retries += retries
        return latest

    def sums(self) -> tuple[int, int]:
        now = math.floor(clock.now() / self.slice_s)
        while self.slices and not now - _SLICES < self.slices[0].number <= now:
            self.slices.popleft()
        return sum(each.requests for each in self.slices), sum(each.retries for each in self.slices)

    def is_empty(self) -> bool:
        return self.sums() == (0, 0)


@dataclass(slots=True, eq=False)
class _RatioAllowance:
    budget: Ratio
    window: _Window
    taken: _Slice | None = None

    def take(self, _: Exception, /) -> bool:
        if self.budget._balance(self.window) < 1 - 1e-9:
            self.budget._accounts.refused += 1
            return False
        self.taken = self.window.note(retries=1)
        return True

    def put_back(self) -> None:
        if self.taken is not None:
            self.taken.retries -= 1
            self.taken = None

    def ended(self, attempts: Sequence[Attempted]) -> None:
        """A retry counts whatever became of it."""

    def answered(self) -> None:
        """An answer gives nothing back."""


@dataclass(frozen=True)
class Quota:
    """A stock of units for retries, `start` at first. A retry takes `cost`, or `timeout_cost` after a time-out.

    An answer gives back what the last retry of its request took, or `back` where there was none, up to `start`. A failed
    request gives nothing back. Time gives nothing back either, so after a long outage the retries return with the answers.
    A time-out is an `EngineStalled`, or an engine's status 408 or 504. Botocore's own settings are the default. Raises
    `InvalidValue` for settings that are no whole numbers from 0.
    """

    start: int = 500
    cost: int = 5
    timeout_cost: int = 10
    back: int = 1
    by: tuple[By, ...] = PER_TENANT_AND_MODEL
    _accounts: Accounts[_Units] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("start", "cost", "timeout_cost", "back"):
            if not is_whole(getattr(self, name), 0):
                raise InvalidValue(f"{name} is {getattr(self, name)!r:.60}; use a whole number of units from 0")
        object.__setattr__(self, "by", groups(self.by))
        object.__setattr__(self, "_accounts", Accounts(lambda: _Units(self.start), lambda units: units.left == self.start))

    @property
    def refused(self) -> int:
        """How many retries this budget has refused."""
        return self._accounts.refused

    def of(self, request: Request, *, first: bool) -> Allowance:
        """The dealings of `request`."""
        return _QuotaAllowance(self, self._accounts.of(request, self.by), first)

    def left(self, request: Request) -> int:
        """The units that are left now, in the group of `request`."""
        return self._accounts.of(request, self.by).left


@dataclass(slots=True, eq=False)
class _Units:
    left: int


@dataclass(slots=True, eq=False)
class _QuotaAllowance:
    budget: Quota
    units: _Units
    first: bool
    taken: int | None = None

    def take(self, error: Exception, /) -> bool:
        timed_out = isinstance(error, EngineStalled) or getattr(error, "status", None) in (408, 504)
        amount = self.budget.timeout_cost if timed_out else self.budget.cost
        if amount > self.units.left:
            self.budget._accounts.refused += 1
            return False
        self.units.left -= amount
        self.taken = amount
        return True

    def put_back(self) -> None:
        if self.taken is not None:
            self._give(self.taken)

    def ended(self, attempts: Sequence[Attempted]) -> None:
        """What a retry took comes back with the answer only."""

    def answered(self) -> None:
        if self.taken is not None:
            self._give(self.taken)
        elif self.first:
            self._give(self.budget.back)

    def _give(self, amount: int) -> None:
        self.units.left = min(self.budget.start, self.units.left + amount)
        self.taken = None


Count = Callable[[Request], int]
"""How many tokens a request's prompt has."""


def at_most_tokens(request: Request) -> int:
    """A number of input tokens that `request` cannot exceed: a token of a byte-level tokenizer has at least one byte.

    It is about four times the true number for English. Give `Dollars` the count of a tokenizer for a tighter reservation.
    """
    texts = [text for m in request.messages for text in (m.content, m.name, m.tool_call_id)]
    texts += [text for m in request.messages for call in m.tool_calls for text in (call.id, call.name, call.arguments)]
    texts += [repr(request.extra.get("tools", "")), repr(request.response_format or "")]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + _TEMPLATE_TOKENS * len(request.messages)


@dataclass(frozen=True)
class Dollars:
    """At most `usd` dollars for retries, growing again by `per_s` dollars a second up to `usd`.

    A retry reserves what one attempt may cost at worst: `count(request)` tokens read and `max_tokens` written, at the
    dearest of `prices` that can apply, nothing cached. When it has ended, all attempts that it led to are charged at what
    they did cost, and the rest of the reservation is free again. That is exact wherever the ledger's cost is: for answers
    and for streams that were cut after a running count. Where an engine gave no count of what it had read, `count` stands
    in. Where nothing came at all, an error with an HTTP status cost nothing, and any other (a time-out, a broken
    connection) is charged as reserved, because nobody here knows what the engine had done by then. A hedge or a fallback
    below may spend more than was reserved. Then the account goes below 0, and no retry is made until it is filled again.

    `prices` maps models to price lists in USD, as for `labkit.ledger.Booked`: "*" stands for all others. A model without a
    price is charged at the dearest. With `usd` 0 nothing is retried. Raises `InvalidValue` for amounts that are negative or
    not finite, and for price lists that are missing or in another currency.
    """

    usd: Decimal
    per_s: Decimal
    prices: Mapping[str, Price]
    count: Count = at_most_tokens
    by: tuple[By, ...] = PER_TENANT_AND_MODEL
    _accounts: Accounts[_Purse] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("usd", "per_s"):
            object.__setattr__(self, name, _amount(name, getattr(self, name)))
        if not isinstance(self.prices, Mapping) or not self.prices:
            raise InvalidValue(f'prices is {self.prices!r:.80}; map models to price lists, as in {{"*": price}}')
        for model, price in self.prices.items():
            if not isinstance(price, Price) or price.currency != "USD":
                raise InvalidValue(f"the price of {model!r:.60} is {price!r:.80}; give a labkit.cost.Price in USD")
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a request to its number of input tokens")
        object.__setattr__(self, "prices", dict(self.prices))
        object.__setattr__(self, "by", groups(self.by))
        object.__setattr__(self, "_accounts", Accounts(lambda: _Purse(self), lambda purse: purse.level() >= self.usd))

    @property
    def refused(self) -> int:
        """How many retries this budget has refused."""
        return self._accounts.refused

    def of(self, request: Request, *, first: bool) -> Allowance:  # noqa: ARG002 - the protocol's
        """The dealings of `request`."""
        return _DollarsAllowance(self, self._accounts.of(request, self.by), request)

    def left(self, request: Request) -> Decimal:
        """The dollars that are left now, in the group of `request`."""
        return self._accounts.of(request, self.by).level()

    def worst(self, request: Request) -> Decimal:
        """What one attempt at `request` may cost at worst, in USD."""
        price = self.prices.get(request.model)
        return max(_dearest(each, self._read(request), request.max_tokens) for each in ([price] if price else self._all()))

    def cost(self, attempt: Attempted, request: Request, reserved: Decimal) -> Decimal:
        """What `attempt` did cost, in USD; `reserved` where that is not known."""
        if attempt.served:
            return Decimal(0)
        if attempt.done is not None and not attempt.done.usage_note:
            return self._priced((attempt.model, attempt.done.model), attempt.done.usage)
        if attempt.done is not None:
            return reserved
        if attempt.arrived.source == "running":
            return self._priced((attempt.model,), attempt.arrived.usage)
        if attempt.arrived.source == "counted":
            return self._priced((attempt.model,), attempt.arrived.usage + Usage(self._read(request)))
        refused = isinstance(attempt.error, EngineError) and attempt.error.status is not None
        return Decimal(0) if refused else reserved

    def _priced(self, models: tuple[str, ...], usage: Usage) -> Decimal:
        price = next((self.prices[name] for name in (*models, ANY_MODEL) if name in self.prices), None)
        return max(price_request(usage, each).total for each in ([_now(price)] if price else map(_now, self._all())))

    def _all(self) -> list[Price]:
        return list(self.prices.values())

    def _read(self, request: Request) -> int:
        """The tokens of the prompt, as `count` has it; where that fails, as `at_most_tokens` has it."""
        try:
            found = self.count(request)
            return found if is_whole(found, 0) else at_most_tokens(request)
        except Exception:  # noqa: BLE001 - a count that fails must not cost the caller an answer
            return at_most_tokens(request)


@dataclass(slots=True, eq=False)
class _Purse:
    budget: Dollars
    amount: Decimal = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.amount = self.budget.usd
        self.at = clock.now()

    def level(self) -> Decimal:
        """The amount, filled up to now."""
        now = clock.now()
        grown = Decimal(max(0.0, now - self.at)) * self.budget.per_s
        self.amount = min(self.budget.usd, self.amount + grown)
        self.at = now
        return self.amount


@dataclass(slots=True, eq=False)
class _DollarsAllowance:
    budget: Dollars
    purse: _Purse
    request: Request
    taken: Decimal | None = None

    def take(self, _: Exception, /) -> bool:
        worst = self.budget.worst(self.request)
        if self.budget.usd == 0 or worst > self.purse.level():
            self.budget._accounts.refused += 1
            return False
        self.purse.amount -= worst
        self.taken = worst
        return True

    def put_back(self) -> None:
        self._settle(Decimal(0))

    def ended(self, attempts: Sequence[Attempted]) -> None:
        reserved = self.taken or Decimal(0)
        self._settle(sum((self.budget.cost(each, self.request, reserved) for each in attempts), Decimal(0)))

    def answered(self) -> None:
        """An answer gives nothing back: its retry is settled when it has ended."""

    def _settle(self, cost: Decimal) -> None:
        if self.taken is not None:
            self.purse.amount = min(self.budget.usd, self.purse.level() + self.taken - cost)
            self.taken = None


def groups(given: object) -> tuple[By, ...]:
    """`given` as the names that make a group. Raises `InvalidValue` for others than those of `By`."""
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else (given,)
    known: dict[object, By] = {name: name for name in get_args(By)}
    if not all(name in known for name in names):
        raise InvalidValue(f"by is {given!r:.80}; name some of {', '.join(get_args(By))}, or none for one budget in all")
    return tuple(known[name] for name in names)


def check_from_0(name: str, value: object) -> None:
    """Raise `InvalidValue` unless `value` is a finite number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidValue(f"{name} is {value!r:.60}; use a finite number from 0")


def _amount(name: str, given: object) -> Decimal:
    try:
        amount = Decimal(str(given))
    except ArithmeticError:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise InvalidValue(f"{name} is {given!r:.60}; use an amount in USD from 0, such as Decimal('0.50')")
    return amount


def _now(price: Price) -> Price:
    """`price` as it is at this hour."""
    return price.at(datetime.fromtimestamp(clock.unix_now(), UTC))


def _dearest(price: Price, read: int, written: int) -> Decimal:
    """The cost of so many tokens at the dearest kinds that they can be of."""
    kinds = (Usage(read, written, 0, wrote, thought) for wrote in (0, read) for thought in (0, written))
    return max(price_request(usage, _now(price)).total for usage in kinds)
