"""The lever that holds a stack to its budgets: every attempt is covered before it is sent, and charged when it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from labkit.budgets.errors import BudgetExhausted, Overspent, PursesError
from labkit.budgets.limits import Spender, checked_usd, usd_text
from labkit.budgets.purses import Hold, Purses
from labkit.cost import Price, UnknownPrice, most_input_tokens, most_output_tokens, price_request, worst_case
from labkit.ledger import ANY_MODEL
from labkit.request import (
    Arrived,
    DeadlineExceeded,
    Done,
    EngineError,
    EngineStalled,
    Event,
    Handler,
    InvalidValue,
    LabError,
    Lever,
    Request,
    StreamIncomplete,
    Usage,
    clock,
    is_whole,
    joined,
)


@dataclass(frozen=True)
class Budgeted(Lever):
    """Sets the worst case aside in `purses` before each attempt in its stack, and charges the real cost when it ends.

    It may stand anywhere: an attempt is what a handler below it computes, and each one below a retry, a fallback, a hedge, a
    cascade or a shadow has its own hold. An answer that a cache serves costs nothing and holds nothing. Two of these levers
    with the same purses in one stack count once.

    The worst case of an attempt is `count(request)` tokens read and the most that may be written, at the dearest kind of
    token and the dearest tier that can apply. `prices` maps models to price lists in USD, as for `labkit.ledger.Booked`. A
    model without a price is refused with `UnknownPrice`, since nobody knows what it may cost; so is one that `extra` names.
    `count` is an upper bound; by default it is that of byte-level tokenizers, about four times the true number. The count of
    a tokenizer of one's own holds less aside.

    Where the worst case does not fit, the attempt is not sent and `BudgetExhausted` (402) is raised in its place. A fallback
    may go on to a cheaper model. Where no attempt at a request was let through, the caller gets the `BudgetExhausted`
    whatever the levers between made of it.

    When an attempt ends, it is charged:

    - a whole answer: its cost; where the engine did not count its tokens, what was held;
    - a stream that ended early, in any way: the engine's running count; where it gave none, the tokens that arrived, and
      `count(request)` tokens read, since they may be billed;
    - an error before anything came: nothing. But for a deadline, a stall, a broken stream or a caller who left, the tokens
      read, since the engine may have begun.

    An engine that goes past what is held (more input than `count` said, or past `max_tokens`) is stopped there: the attempt
    ends with what has arrived, finish reason "length", "budget" on its route and `Overspent` on its `faults`. What it cost
    is charged in full; the books hold it as cancelled. No cache keeps such an answer.

    A price knows tokens only. Where `extra` asks for what costs more (a faster service, a cache that lasts an hour), give
    the price of that.

    A charge that could not be written does not cost the caller the answer: it is on the answer's `faults`, and made later.
    """

    purses: Purses
    prices: Mapping[str, Price]
    count: Callable[[Request], int] = most_input_tokens

    def __post_init__(self) -> None:
        if not isinstance(self.purses, Purses):
            raise InvalidValue(f"Budgeted needs Purses, such as Purses('purses.db'); it got {self.purses!r:.80}")
        if not isinstance(self.prices, Mapping) or not self.prices:
            raise InvalidValue(
                f'prices is {self.prices!r:.80}; map model names to price lists, as in {{"small": price}} or '
                f'{{"{ANY_MODEL}": price}} for all'
            )
        for name, price in self.prices.items():
            if not isinstance(name, str) or not isinstance(price, Price):
                raise InvalidValue(f"prices[{name!r}] is {price!r:.80}; map a model's name to a labkit.cost.Price")
            if price.currency != "USD":
                raise InvalidValue(f"the price of {name} is in {price.currency}; limits are in USD, so give a price in USD")
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a request to a number of tokens")
        object.__setattr__(self, "prices", dict(self.prices))

    def over(self, inner: Handler) -> Handler:
        """`inner`, with every attempt in it held to the budgets."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            attempts = _Attempts(self)
            watched = replace(request, books=joined(request.books, (attempts,)))
            try:
                async with aclosing(inner(watched)) as events:
                    async for event in events:
                        yield event
            except EngineError as error:
                if attempts.refused is None or attempts.admitted or error is attempts.refused:
                    raise
                raise attempts.refused from error

        return handle

    def price(self, *names: str) -> Price:
        """The price at this hour for the first of `names` that has one; raises `UnknownPrice`."""
        found = next((self.prices[name] for name in (*names, ANY_MODEL) if name in self.prices), None)
        if found is None:
            told = " or ".join(dict.fromkeys(name for name in names if name)) or "a model without a name"
            raise UnknownPrice(
                f"Budgeted has no price for {told}, so nobody knows what it may cost; it has {', '.join(self.prices)}. "
                f'Add it, or "{ANY_MODEL}" for all others'
            )
        return found.at(datetime.fromtimestamp(clock.unix_now(), UTC))


class _Attempts:
    """The books (`labkit.request.Books`) of one request's attempts, in which each has its hold."""

    for_computed = True

    def __init__(self, lever: Budgeted) -> None:
        self.lever = lever
        self.admitted = 0
        self.refused: BudgetExhausted | None = None

    @property
    def names(self) -> frozenset[str]:
        purses = self.lever.purses
        return frozenset((f"purses-{id(purses) if purses.in_memory else purses.path}",))

    def open(self, request: Request, model: str) -> _Page:
        price = self.lever.price(*_models(request, model))
        read = self.lever.count(request)
        if not is_whole(read, 0):
            raise InvalidValue(f"count gave {read!r:.60} for a request; it must give a whole number of tokens")
        written = most_output_tokens(request, price)
        try:
            hold = self.lever.purses.hold(Spender.of(request), worst_case(price, read, written), clock.unix_now())
        except BudgetExhausted as error:
            self.refused = error
            raise
        self.admitted += 1
        return _Page(self.lever.purses, price, read, written, hold)


class _Page:
    """One attempt: what is held for it, from before it is sent until it has ended in whatever way."""

    def __init__(self, purses: Purses, price: Price, read: int, written: int, hold: Hold) -> None:
        self._purses = purses
        self._price = price
        self._read = read
        self._written = written
        self._hold = hold
        self._settled = False

    def completed(self, arrived: Arrived, done: Done) -> Done:  # noqa: ARG002 - the whole answer says more
        try:
            usd = self._cost(done)
            over = self._overspent(usd, done.usage)
        except Exception as error:  # noqa: BLE001 - a Done may hold anything; the answer was paid for
            usd, over = self._hold.usd, None
            done = done.beside("budgeted", error)
        for fault in (over, self._charge(usd)):
            done = done if fault is None else done.beside("budgeted", fault)
        return done

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:  # noqa: ARG002 - never served
        unkept = self._charge(self._so_far(arrived, error))
        if unkept is not None and error is not None:
            error.add_note(f"and its cost is not charged yet: {unkept}")

    def void(self) -> None:
        self._charge(Decimal(0))

    def beyond(self, arrived: Arrived) -> Overspent | None:
        """What to say where the tokens that arrived cost more than is held; None where they do not."""
        usage = self._usage(arrived)
        if self._settled or (usage.input_tokens <= self._read and usage.output_tokens <= self._written):
            return None
        try:
            return self._overspent(price_request(usage, self._price).total, usage)
        except Exception:  # noqa: BLE001 - chunks may hold anything; the attempt is charged what is held when it ends
            return None

    def _overspent(self, usd: Decimal, usage: Usage) -> Overspent | None:
        if usd <= self._hold.usd:
            return None
        return Overspent(
            f"{usage.input_tokens} tokens read and {usage.output_tokens} written cost {usd_text(usd)} USD, and "
            f"{usd_text(self._hold.usd)} were held, for at most {self._read} and {self._written}; give Budgeted a count "
            "that is an upper bound for this engine, or an engine that keeps to max_tokens"
        )

    def _usage(self, arrived: Arrived) -> Usage:
        """The usage so far; where the engine gave no running count, the input at its upper bound."""
        return arrived.usage if arrived.source == "running" else arrived.usage + Usage(self._read)

    def _cost(self, done: Done) -> Decimal:
        if done.usage_note:
            return self._hold.usd
        if done.cost is not None and done.currency == "USD":
            return checked_usd("the cost of the answer", done.cost)  # what the books have
        return price_request(done.usage, self._price).total

    def _so_far(self, arrived: Arrived, error: BaseException | None) -> Decimal:
        if not arrived.chunks and _not_begun(error):
            return Decimal(0)
        try:
            return price_request(self._usage(arrived), self._price).total
        except Exception:  # noqa: BLE001 - chunks may hold anything
            return self._hold.usd

    def _charge(self, usd: Decimal) -> PursesError | None:
        """Settle the hold, once; an error is returned."""
        if self._settled:
            return None
        self._settled = True
        try:
            self._purses.settle(self._hold, usd)
        except PursesError as error:
            return error
        return None


def _models(request: Request, model: str) -> tuple[str, ...]:
    """The names by which the model of `request` may have its price, the first that has one; `extra` may name another."""
    sent = request.extra.get("model") if isinstance(request.extra, Mapping) else None
    return (request.model, model) if sent is None else (str(sent),)


def _not_begun(error: BaseException | None) -> bool:
    """Whether an attempt that `error` ended before anything came cost nothing: it was refused, or never arrived."""
    may_have_begun = DeadlineExceeded | EngineStalled | StreamIncomplete
    return isinstance(error, LabError) and not isinstance(error, may_have_begun)
