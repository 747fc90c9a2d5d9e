"""Failures made on purpose, on a schedule with a seed: what an engine's bad day looks like to the levers above it.

A `Mishap` is one kind of failure, and `Mishaps` the lever that has it happen. The errors are those that `labkit.engines`
raises when an endpoint really fails, and the books get the rows that a real failure leaves. So neither levers nor ledgers
can tell the difference.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any, Literal, get_args

from labkit.request import (
    Arrived,
    Books,
    Chunk,
    Done,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    Event,
    Handler,
    InvalidRequest,
    InvalidValue,
    Lever,
    Page,
    Request,
    StreamIncomplete,
    Usage,
    books_in,
    clock,
    is_whole,
    joined,
    metered,
)

MishapKind = Literal[
    "rate-limit", "error", "unavailable", "no-answer", "lost", "stall", "cut", "no-done", "drip", "empty", "garbled",
    "bad-usage", "after-done",
]  # fmt: skip
MISHAP_FIELD = "labkit_mishap"
"""The field of `Request.extra` by which a request asks for a mishap of its own."""
_REFUSALS: Mapping[str, tuple[int, str]] = {
    "rate-limit": (429, "rate limit reached"),
    "error": (500, "internal server error"),
    "unavailable": (503, "the engine is overloaded"),
}
_ME = "the engine"


@dataclass(frozen=True, slots=True)
class Mishap:
    """One kind of failure, and when it happens.

    Before the engine is asked, so that nothing is paid:

    - "rate-limit", "error", "unavailable": HTTP status 429, 500, 503. `retry_after_s` is what the engine asks to be left
      alone for (None: it does not say). With `as_date` it says so as a date, whose whole seconds round the wait up.
    - "no-answer": nothing comes for `wait_s` seconds, then `EngineStalled`.

    While it answers, so that what it computed is paid:

    - "lost": it computes the whole answer, of which nothing arrives; `EngineStalled`, `wait_s` seconds after that.
    - "stall": `after` pieces of the answer arrive, then nothing for `wait_s` seconds; `EngineStalled`.
    - "cut": the connection breaks when `after` pieces have arrived and the next one is on its way (the end counts as one).
      `EngineUnreachable` with `after` of 0, `StreamIncomplete` else.
    - "no-done": all pieces arrive, and the stream ends without a `Done`.
    - "drip": each piece arrives `wait_s` seconds after the one before it was read. The answer is whole, and late.
    - "empty": the `Done` arrives, and nothing before it.
    - "garbled": all pieces behind the first `after` are illegible (U+FFFD).
    - "bad-usage": the engine's count makes no sense, so the `Done` has none (`usage_note` says why).
    - "after-done": another piece comes after the `Done`.

    It befalls a `share` of the requests that come from `start_s` up to `end_s`, in seconds of `clock.now()`. Raises
    `InvalidValue` for settings out of range.
    """

    kind: MishapKind
    share: float = 1.0
    after: int = 1
    wait_s: float = 120.0
    retry_after_s: float | None = None
    as_date: bool = False
    start_s: float = 0.0
    end_s: float = math.inf

    def __post_init__(self) -> None:
        if self.kind not in get_args(MishapKind):
            raise InvalidValue(f"mishap {self.kind!r:.40} is unknown; use one of {', '.join(get_args(MishapKind))}")
        for name, least, most in (("share", 0.0, 1.0), ("wait_s", 0.0, math.inf), ("retry_after_s", 0.0, math.inf)):
            value = getattr(self, name)
            if name == "retry_after_s" and value is None:
                continue
            if not _number(value) or not least <= value <= most or value == math.inf:
                raise InvalidValue(f"{name} is {value!r:.40}; use a finite number from {least:g} to {most:g}")
        if not is_whole(self.after, 0):
            raise InvalidValue(f"after is {self.after!r:.40}; let a whole number of pieces through, from 0")
        if not _number(self.start_s) or not _number(self.end_s) or not self.start_s < self.end_s:
            raise InvalidValue(f"the mishap lasts from {self.start_s!r:.40} to {self.end_s!r:.40} s; the end comes later")


@dataclass(frozen=True)
class Mishaps(Lever):
    """Has each of `mishaps` befall its share of the requests; put it next to the engine, below all other levers.

    The mishaps are tried in their order, each with dice of its own, and the first that hits is the request's. So an outage
    goes in front: `Mishap("unavailable", start_s=60, end_s=70)`. The dice depend on `seed` and on the request's number, in
    the order in which requests arrive: the same traffic has the same bad day in every run.

    With `remote`, a request may ask for its own mishap, or to be spared: `Request.extra["labkit_mishap"]` is the name of a
    kind, a mapping of `Mishap`'s fields, or "none". The field never reaches the engine. Leave this off where strangers send
    requests. Raises `InvalidValue` for what is no tuple of mishaps; a request that asks for an unknown mishap raises
    `InvalidRequest`.

    Each attempt has one row in the books, above this lever and below it alike, as if the engine itself had failed: with the
    error, and with what the engine had computed by then.
    """

    mishaps: tuple[Mishap, ...] = ()
    seed: int = 0
    remote: bool = False

    def __post_init__(self) -> None:
        given: object = self.mishaps
        if not isinstance(given, tuple | list) or not all(isinstance(each, Mishap) for each in given):
            raise InvalidValue(f"mishaps is {given!r:.80}; give a tuple of Mishap values")
        object.__setattr__(self, "mishaps", tuple(given))
        if not is_whole(self.seed, 0):
            raise InvalidValue(f"seed is {self.seed!r:.40}; use a whole number from 0")

    def befalls(self, number: int, at: float) -> Mishap | None:
        """What happens to request `number` (from 1) that comes at `at`, in seconds of `clock.now()`; None for nothing."""
        dice = Random(f"{self.seed} {number}")
        drawn = [(dice.random(), mishap) for mishap in self.mishaps]  # all of them: the time must not move the dice
        return next((each for drew, each in drawn if each.start_s <= at < each.end_s and drew < each.share), None)

    def over(self, inner: Handler) -> Handler:
        """`inner`, with its bad day."""
        beneath, model = books_in(inner), str(getattr(inner, "model", ""))
        seen = 0

        def befallen(request: Request) -> AsyncGenerator[Event, None]:
            nonlocal seen
            seen += 1
            mishap = self.befalls(seen, clock.now())
            if self.remote and MISHAP_FIELD in request.extra:
                mishap = _asked_for(request.extra[MISHAP_FIELD])
                extra = {name: value for name, value in request.extra.items() if name != MISHAP_FIELD}
                request = replace(request, extra=extra)
            if mishap is None:
                return inner(request)
            request = replace(request, books=joined(request.books, beneath))
            if mishap.kind in _REFUSALS or mishap.kind == "no-answer":
                return metered(lambda _: _refused(mishap), model)(request)
            ending = _Ending()
            books = tuple(_Told(each, ending) for each in request.books)
            return _answered(inner, replace(request, books=books), mishap, ending)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async with aclosing(befallen(request)) as events:
                async for event in events:
                    yield event

        return handle


async def _refused(mishap: Mishap) -> AsyncGenerator[Event, None]:
    """Fail without asking the engine."""
    if mishap.kind == "no-answer":
        await asyncio.sleep(mishap.wait_s)
        raise EngineStalled(f"{_ME} sent nothing for {mishap.wait_s:g} s after 0 chunks; it is overloaded or stuck")
    status, words = _REFUSALS[mishap.kind]
    wait = mishap.retry_after_s
    if wait is not None and mishap.as_date:
        now = clock.unix_now()
        wait = math.ceil(now + wait) - now
    raise EngineError(f"{_ME} answered {status}: {words}", status, wait)
    yield  # type: ignore[unreachable]  # it makes this a stream


async def _answered(inner: Handler, request: Request, mishap: Mishap, ending: _Ending) -> AsyncGenerator[Event, None]:
    """The answer of `inner` as far as the mishap lets it through; `ending` gets the error before the engine is closed."""
    kind, pieces = mishap.kind, 0
    if kind in ("lost", "no-done", "cut", "stall"):
        ending.whole = _error(mishap, 0)  # an answer whose end does not arrive has failed, though the engine ended it
    ending.uncounted = kind == "bad-usage"
    async with aclosing(inner(request)) as events:
        async for event in events:
            if isinstance(event, Done):
                if kind == "bad-usage":
                    yield _uncounted(event)
                    return
                if kind in ("lost", "stall"):
                    break
                if kind == "no-done":
                    return
                if kind == "cut":
                    raise _error(mishap, pieces)
                yield _late(event, ending) if kind == "drip" else event
                if kind == "after-done":
                    yield Chunk("more", clock.now())
                continue
            if kind in ("lost", "empty"):
                if kind == "empty" and event.usage is not None:
                    yield replace(event, text="", reasoning="", logprobs=(), tool_calls=())  # the running count still comes
                continue
            if event.has_content:
                if kind in ("cut", "stall") and pieces >= mishap.after:
                    break
                pieces += 1
                if kind == "drip":
                    await asyncio.sleep(mishap.wait_s)
                    event = replace(event, at=clock.now())
                    ending.first = ending.first or event.at
                    ending.last = event.at
                elif kind == "garbled" and pieces > mishap.after:
                    event = replace(event, text="\ufffd" * len(event.text))
            yield event
        else:
            return
        error = ending.error = _error(mishap, pieces)
        if kind != "cut":
            await asyncio.sleep(mishap.wait_s)
        raise error


def _error(mishap: Mishap, pieces: int) -> EngineError:
    """The error, as `labkit.engines` words it, of a stream that the mishap ended after `pieces` pieces."""
    if mishap.kind in ("lost", "stall"):
        return EngineStalled(f"{_ME} sent nothing for {mishap.wait_s:g} s after {pieces} chunks; it is overloaded or stuck")
    if mishap.kind == "no-done":
        return StreamIncomplete("the stream ended without a Done; the answer is not whole")
    if mishap.after == 0:
        return EngineUnreachable(f"{_ME} cannot be reached: the connection was reset before any part of an answer came")
    return StreamIncomplete(f"the connection to {_ME} broke after {pieces} chunks (reset by peer); the answer is not whole")


def _uncounted(done: Done) -> Done:
    return replace(done, usage=Usage(), cost=None, usage_note="the endpoint's usage makes no sense; nothing is known")


def _late(done: Done, ending: _Ending) -> Done:
    timing = replace(done.timing, first_token=ending.first, last_token=ending.last, done=clock.now())
    return replace(done, timing=timing)


@dataclass(slots=True)
class _Ending:
    """How an attempt ends by a mishap: what the books must hear, and when the pieces of a slow answer arrived.

    `error` ended the attempt before the engine had ended it. `whole` is the error where the engine ended it and the end did
    not arrive. `uncounted`: the engine's count makes no sense.
    """

    error: EngineError | None = None
    whole: EngineError | None = None
    uncounted: bool = False
    first: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class _Told:
    """Books that hear of the mishap where they would hear only that somebody closed the stream."""

    books: Books
    ending: _Ending

    @property
    def names(self) -> frozenset[str]:
        return self.books.names

    def open(self, request: Request, model: str) -> _ToldPage:
        return _ToldPage(self.books.open(request, model), self.ending)


@dataclass(frozen=True)
class _ToldPage:
    page: Page
    ending: _Ending

    def completed(self, arrived: Arrived, done: Done) -> Done:
        if self.ending.whole is None:
            return self.page.completed(arrived, _uncounted(done) if self.ending.uncounted else done)
        self.page.cut(arrived, self.ending.whole, served=False)
        return done

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        closed = error is None or isinstance(error, GeneratorExit)
        self.page.cut(arrived, self.ending.error or error if closed else error, served=served)


def _asked_for(given: Any) -> Mishap | None:
    """The mishap that a request asks for; None to be spared. Raises `InvalidRequest` for anything else."""
    if given == "none":
        return None
    settings = {"kind": given} if isinstance(given, str) else given
    known = [each.name for each in fields(Mishap)]
    if not isinstance(settings, Mapping) or not settings.keys() <= set(known):
        raise InvalidRequest(f'{MISHAP_FIELD} is {given!r:.80}; give a kind, "none", or a mapping of {", ".join(known)}')
    try:
        return Mishap(**settings)
    except (InvalidValue, TypeError) as error:
        raise InvalidRequest(f"{MISHAP_FIELD} is {given!r:.80}: {error}") from error


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
