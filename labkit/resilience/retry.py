"""Make an attempt again after a failure that may pass, while there is time, money and something to gain.

The loop is written here, and not taken from `tenacity`, because little of it would be left: its waits draw from Python's
global dice, its clock is `time.monotonic`, which virtual time does not move, and its context manager takes in
GeneratorExit, by which a stream learns that its reader has left. A test gives both the same failures and the same dice,
and compares the attempts and the waits.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from random import Random

from labkit.request import (
    DeadlineExceeded,
    Done,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    StreamIncomplete,
    clock,
    complete,
    hops,
    is_whole,
    opened,
    released,
)
from labkit.resilience.attempted import Watch
from labkit.resilience.backoff import Backoff
from labkit.resilience.retry_budget import Allowance, RetryBudget, check_from_0
from labkit.routing import AllDown, CircuitOpen, retry_after_s

_MAY_PASS = frozenset((408, 409, 429))
_NEVER_PASSES = frozenset((501, 505))
# Said with status 429 by an account that has no money left; waiting does not fill it.
_SPENT = re.compile(
    r"insufficient[ _-]quota|exceeded your current quota|budget\W+(?:has been |was |is )?exceeded"
    r"|exceeded\W+(?:\w+ )?budget|credit balance|billing[ _]hard[ _]limit",
    re.IGNORECASE,
)


def retryable(error: Exception) -> bool:
    """Whether the same request, sent again, may well succeed.

    It may after an engine could not be reached, sent nothing for too long or broke off, after HTTP status 408, 409 and 429,
    and after those from 500 on but 501 and 505. It will not after any other status: the request is at fault (400, 404, 413,
    422), or the key (401, 403), or the account (402, and 429 where the message says that the money is spent). Nor will it
    after the lab's own refusals (`InvalidRequest`, a deadline that has passed, an empty budget).

    `CircuitOpen` is an answer, not a failure: the breaker has said that asking is useless for now, and a caller that
    waits for its cool-down would only come back with all the others. `AllDown` is worth a retry if the error of one of
    its models is.
    """
    if isinstance(error, AllDown):
        return any(retryable(each) for each in error.errors.values())
    if isinstance(error, CircuitOpen) or not isinstance(error, EngineError):
        return False
    if isinstance(error, EngineUnreachable | EngineStalled | StreamIncomplete):
        return True
    if error.status is None or _SPENT.search(str(error)):
        return False
    return error.status in _MAY_PASS or (500 <= error.status <= 599 and error.status not in _NEVER_PASSES)


@dataclass(frozen=True, slots=True)
class RetryCounts:
    """What a retry did so far, in numbers of requests but for `attempts`.

    `requests` came in, and `attempts` were made for them. `answered` of them got an answer. The others ended with an
    error after which no further attempt was made: `limit_reached`, because the request had had its attempts;
    `budget_empty`, because a budget that it shares refused; `out_of_time`, because the deadline or the longest wait left
    no time; `not_safe`, because the failure would not pass; `after_content`, because the reader had a part of the answer
    already. Those that were cancelled are the rest.
    """

    requests: int = 0
    attempts: int = 0
    answered: int = 0
    limit_reached: int = 0
    budget_empty: int = 0
    out_of_time: int = 0
    not_safe: int = 0
    after_content: int = 0


@dataclass(frozen=True)
class Retry(Lever):
    """Makes up to `attempts` attempts at each request, until one answers.

    An attempt is made again only if the failure is `safe` (a function of the error; `retryable` by default), and only
    while nothing of the answer has reached the reader: after that, the error is raised. An attempt that has given the
    reader nothing for `silence_s` seconds counts as stalled. With `whole`, an answer is held back until it is whole. So
    an attempt that breaks off half way can be made again, and `silence_s` is the time that a whole answer may take; but
    the reader waits for all of it.

    Between two attempts it waits as `backoff` says, and never less than the engine asked for (`Retry-After`). If it asked
    for more than `longest_wait_s` seconds, no further attempt is made.

    All attempts share the request's deadline. No attempt is made that would begin after it. Nor one that could not end by
    it, where `expects` tells how many seconds an attempt takes (such as the latency model of chapter 02, for the
    request's tokens): a first one raises `DeadlineExceeded` at once. An `expects` that fails is left out, and told on
    `Done.faults`.

    `budgets` are shared with other requests (`labkit.resilience.retry_budget`). A retry needs all of them; one that is
    refused costs none of them anything. First attempts need no budget.

    The error at the end is that of the last attempt. A note on it (`__notes__`) says what ended the attempts before, and
    why no further one was made; `counts` has the number of requests for each reason. Each attempt has its own number
    (`Request.attempt`) and its own row in the ledger. An answer after n > 1 attempts has "retry:n" on its route, and its
    latency counts from the first attempt.

    Retries multiply: over another `Retry` of m attempts, n attempts are up to n · m attempts at the engine, over a
    `Fallback` of m models n · m too, and over a `Hedge` likewise. So use one, next to the engine or at the outside, not
    both. Where there are two, give both the same budget: it counts a request once, and bounds the retries of both
    together.

    `seed` makes the waits the same in each run; None, the default, makes them different in each process, as they must be
    where many processes ask one engine. Raises `InvalidValue` for settings that cannot work.
    """

    attempts: int = 3
    backoff: Backoff = field(default_factory=Backoff)
    budgets: tuple[RetryBudget, ...] = ()
    expects: Callable[[Request], float] | None = None
    safe: Callable[[Exception], bool] = retryable
    silence_s: float = 60.0
    whole: bool = False
    longest_wait_s: float = 60.0
    seed: int | None = None
    _tally: Counter[str] = field(init=False, repr=False, compare=False, default_factory=Counter)

    def __post_init__(self) -> None:
        if not is_whole(self.attempts, 1):
            raise InvalidValue(f"attempts is {self.attempts!r:.60}; use a whole number from 1, which is no retry")
        if not isinstance(self.backoff, Backoff):
            raise InvalidValue(f"backoff is {self.backoff!r:.80}; give a Backoff, such as Backoff(first_s=0.5, most_s=8)")
        object.__setattr__(self, "budgets", _budgets(self.budgets))
        for name, function in (("safe", self.safe), ("expects", self.expects or retryable)):
            if not callable(function):
                raise InvalidValue(f"{name} is {function!r:.80}; give a function")
        for name in ("silence_s", "longest_wait_s"):
            check_from_0(name, getattr(self, name))
        if self.silence_s == 0:
            raise InvalidValue("silence_s is 0; allow an attempt some time to begin, such as 60 s")

    @property
    def counts(self) -> RetryCounts:
        """What this retry did so far, in all places that it was put in."""
        return RetryCounts(**self._tally)

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked again where that is safe and there is time and money."""
        dice = Random(self.seed)

        def handle(request: Request) -> AsyncGenerator[Event, None]:
            return _Trial(self, inner, dice, request).stream()

        return handle


@dataclass(frozen=True, slots=True)
class _Stop:
    """No further attempt: the name of the count, and why in words."""

    counted: str
    why: str


class _Trial:
    """The attempts at one request."""

    def __init__(self, retry: Retry, inner: Handler, dice: Random, request: Request) -> None:
        self.retry = retry
        self.inner = inner
        self.dice = dice
        self.request = request
        self.errors: list[Exception] = []
        self.allowances: list[Allowance] = []
        self.aside: Exception | None = None

    async def stream(self) -> AsyncGenerator[Event, None]:
        """The events of the first attempt that answers. Raises the error of the last one."""
        tally = self.retry._tally
        tally["requests"] += 1
        sent, unix = clock.now(), clock.unix_now()
        self._open(sent)
        while True:
            watch = Watch(tuple(map(_mark, self.retry.budgets)))
            begun = over = False
            cancelled = cancellations()
            tally["attempts"] += 1
            try:
                async with aclosing(self._attempt(watch)) as events:
                    async for event in events:
                        if isinstance(event, Done):
                            over = over or self._answered()  # before it is handed on: its reader may never resume us
                            yield self._told(event, sent, unix)
                        else:
                            begun = begun or event.has_content
                            yield event
                return
            except Exception as error:
                if cancellations() > cancelled:
                    raise asyncio.CancelledError from error
                if over:
                    raise
                failure = error
            finally:
                if self.errors:  # so this attempt was a retry
                    for allowance in self.allowances:
                        allowance.ended(watch.ended)
            self.errors.append(failure)
            wait = self._wait(failure, begun)
            if isinstance(wait, _Stop):
                tally[wait.counted] += 1
                self._note(failure, wait.why)
                raise failure
            try:
                await clock.sleep_until(clock.now() + wait)
            except BaseException:
                self._put_back(self.allowances)
                raise

    def _open(self, now: float) -> None:
        """Open the request's dealings with the budgets; raise `DeadlineExceeded` where it cannot be answered in time."""
        request, needed = self.request, self._expected()
        if needed and self._too_late(now + needed):
            self.retry._tally["out_of_time"] += 1
            raise DeadlineExceeded(
                f"no attempt was made: it takes {needed:.3g} s, and the deadline is {(request.deadline or now) - now:.3g} s "
                "away; allow more time or ask for fewer tokens"
            )
        known = frozenset[str]().union(*(books.names for books in request.books))
        self.allowances = [
            budget.of(request, first=request.attempt == 1 and _mark(budget) not in known) for budget in self.retry.budgets
        ]

    def _attempt(self, watch: Watch) -> AsyncGenerator[Event, None]:
        books = (*self.request.books, watch) if self.retry.budgets else self.request.books
        request = replace(self.request, attempt=self.request.attempt + len(self.errors), books=books)
        if self.retry.whole:
            return _whole(self.inner, request, self.retry.silence_s)
        return opened(self.inner(request), self.retry.silence_s)

    def _answered(self) -> bool:
        self.retry._tally["answered"] += 1
        for allowance in self.allowances:
            allowance.answered()
        return True

    def _told(self, done: Done, sent: float, unix: float) -> Done:
        if self.errors:
            done = done.since(sent, unix).via(hops.hop(hops.RETRY, str(len(self.errors) + 1)))
        return done if self.aside is None else done.beside("retry", self.aside)

    def _wait(self, failure: Exception, begun: bool) -> float | _Stop:
        """The seconds to wait before the next attempt, for which the budgets are charged; or why there is none."""
        retry, failed = self.retry, len(self.errors)
        if begun:
            return _Stop("after_content", "a part of the answer had reached the reader")
        if not self._safe(failure):
            return _Stop("not_safe", "this failure would not pass")
        if failed >= retry.attempts:
            return _Stop("limit_reached", f"{retry.attempts} attempts are the limit")
        asked = retry_after_s(failure)
        if asked > retry.longest_wait_s:
            return _Stop(
                "out_of_time", f"the engine asked for {asked:.3g} s, and {retry.longest_wait_s:.3g} s are the limit"
            )
        now, needed = clock.now(), self._expected()
        wait = max(asked, retry.backoff.wait_s(failed, self.dice))
        if self._too_late(now + wait + needed):
            left = (self.request.deadline or now) - now
            told = f" and the {needed:.3g} s of an attempt" if needed else ""
            return _Stop("out_of_time", f"a wait of {wait:.3g} s{told} would not end within the {left:.3g} s that are left")
        for at, allowance in enumerate(self.allowances):
            if not allowance.take(failure):
                self._put_back(self.allowances[:at])
                return _Stop("budget_empty", f"the budget {retry.budgets[at]!r:.200} is empty")
        return wait

    def _too_late(self, end: float) -> bool:
        return self.request.deadline is not None and end >= self.request.deadline

    def _expected(self) -> float:
        """The seconds that an attempt takes; 0 where nobody knows."""
        if self.retry.expects is None:
            return 0.0
        try:
            expected = self.retry.expects(self.request)
            check_from_0("what expects returned", expected)
            return expected
        except Exception as error:  # noqa: BLE001 - an estimate that fails must not cost the caller an answer
            self.aside = error
            return 0.0

    def _safe(self, failure: Exception) -> bool:
        try:
            return bool(self.retry.safe(failure))
        except Exception as error:  # noqa: BLE001 - the engine's error is what the caller has to see
            failure.add_note(f"Retry: {self.retry.safe!r:.80} could not judge this error: {error!r:.200}")
            return False

    def _note(self, failure: Exception, why: str) -> None:
        before = "".join(
            f"; attempt {at} ended with {type(error).__name__}: {error!s:.200}"
            for at, error in enumerate(self.errors[:-1], 1)
        )
        note = f"Retry: no attempt after number {len(self.errors)}, because {why}{before}"
        if note not in getattr(failure, "__notes__", ()):  # an error may be raised for many requests
            failure.add_note(note)

    @staticmethod
    def _put_back(allowances: Iterable[Allowance]) -> None:
        for allowance in allowances:
            allowance.put_back()


async def _whole(inner: Handler, request: Request, seconds: float) -> AsyncGenerator[Event, None]:
    """The answer of `inner`, held back until it is whole. Raises `EngineStalled` where it is not by then."""
    try:
        async with asyncio.timeout(seconds) as limit:
            answer = await complete(inner, request)
    except TimeoutError as error:
        if not limit.expired():  # another timeout, such as a deadline's
            raise
        raise EngineStalled(f"no whole answer within {seconds:.3g} s") from error
    for event in released(answer):
        yield event


def cancellations() -> int:
    """How many cancellations of this task are pending: an engine may raise an error of its own while it is cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _mark(budget: RetryBudget) -> str:
    """What a request carries while `budget` counts it: see `Watch.names`."""
    return f"retry-budget-{id(budget)}"


def _budgets(given: object) -> tuple[RetryBudget, ...]:
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    for each in found:
        if isinstance(each, type) or not isinstance(each, RetryBudget):
            raise InvalidValue(f"budgets holds {each!r:.80}; give retry budgets, such as Ratio(share=0.2)")
    return found
