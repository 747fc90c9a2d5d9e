"""Who records an attempt: the handler that computes or serves the answer, once. Handlers that only forward record nothing.

`labkit.ledger.Booked` puts books on every request that passes through it. Handlers below it in the stack find the books on
the request. A lever above it (a cache that answers by itself) finds them in the handler that the lever was put around. So it
makes no difference where in a stack the ledger stands: `metered` records an engine's answers, `served` a cache's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, runtime_checkable

from labkit.request import hops
from labkit.request.arrived import Arrived
from labkit.request.handler import Handler
from labkit.request.values import Chunk, Done, Event, Request


class Page(Protocol):
    """Where one attempt is recorded. Neither method raises: an error is reported on the `Done`, or in the log."""

    def completed(self, arrived: Arrived, done: Done) -> Done:
        """Record a whole answer; returns its `Done`, with the cost if it had none, and with any error of the recording."""
        ...

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        """Record an attempt that brought no whole answer.

        `error` ended it; None if the stream just ended. `served` says that the answer was served, not computed.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """A `Page` that holds money for its attempt until the attempt ends."""

    def void(self) -> None:
        """The attempt does not begin, or is recorded further in: let go of what is held. Does not raise."""
        ...

    def beyond(self, arrived: Arrived) -> Exception | None:
        """What to say where the tokens that arrived cost more than is held; None while they do not. Does not raise.

        The attempt is then ended, and what arrived is its answer, with finish reason "length" and "budget" on its route.
        """
        ...


class Books(Protocol):
    """What keeps attempts. `names` identifies the ledgers in which it keeps them."""

    @property
    def names(self) -> frozenset[str]:
        """The names of the ledgers, different from those of all other ledgers."""
        ...

    def open(self, request: Request, model: str) -> Page:
        """Begin a page, before anything is paid for. `model` is the name to record for a request that names none.

        Raises a `LabError` for a request that could never be recorded (`labkit.ledger` raises `InvalidRow`), or that must
        not be sent (`labkit.budgets` raises `BudgetExhausted`).
        """
        ...


@runtime_checkable
class ForComputed(Protocol):
    """`Books` with this attribute keep computed answers only: an answer that is served has no page in them."""

    @property
    def for_computed(self) -> bool:
        """True."""
        ...


def joined(books: tuple[Books, ...], more: tuple[Books, ...]) -> tuple[Books, ...]:
    """`books`, then each of `more` that keeps attempts in a ledger which none before it uses."""
    kept: tuple[Books, ...] = books
    for each in more:
        if not each.names <= frozenset[str]().union(*(one.names for one in kept)):
            kept = (*kept, each)
    return kept


class Metered:
    """A handler that computes answers, with each attempt recorded in the books that its request carries."""

    __slots__ = ("inner", "model")

    def __init__(self, inner: Handler, model: str) -> None:
        self.inner = inner
        self.model = model

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The stream of `inner`."""
        return _recorded_once(self.inner, request, self.model) if request.books else self.inner(request)

    def __repr__(self) -> str:
        return repr(self.inner)


def served(events: AsyncGenerator[Event, None], request: Request, beneath: tuple[Books, ...]) -> AsyncGenerator[Event, None]:
    """`events`, an answer not computed for `request`, recorded in the request's books and in those `beneath` the lever."""
    books = joined(request.books, beneath)
    return _recorded(events, request, books, "", served=True) if books else events


async def _recorded_once(inner: Handler, request: Request, model: str) -> AsyncGenerator[Event, None]:
    """Record the attempt, unless `inner` forwards to a stack that has recorded it already."""
    watch = _Watch(request.books)
    stream = _recorded(inner(replace(request, books=(watch,))), request, request.books, model, watch=watch)
    async with aclosing(stream) as events:
        async for event in events:
            yield event


async def _recorded(
    events: AsyncGenerator[Event, None],
    request: Request,
    books: tuple[Books, ...],
    model: str,
    *,
    watch: _Watch | None = None,
    served: bool = False,
) -> AsyncGenerator[Event, None]:
    pages = _opened(books, request, model, served=served)  # first: a request that cannot be recorded must not cost anything
    if watch is not None:
        watch.outer = list(pages)
    holding = [page for page in pages if isinstance(page, Holding)]
    arrived = Arrived.now()
    beyond: Exception | None = None

    def cut(error: BaseException | None) -> None:
        while pages and (watch is None or not watch.recorded):
            pages.pop(0).cut(arrived, error, served=served)

    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    arrived.note(event)
                elif watch is None or not watch.recorded:
                    while pages:  # one by one: where a user's interrupt comes between, the others are still cut below
                        event = pages.pop(0).completed(arrived, event)
                yield event
                if holding and isinstance(event, Chunk):
                    beyond = _beyond(holding, arrived)
                    if beyond is not None:
                        break
        cut(None if beyond is None else GeneratorExit())  # cancelled from here
    except BaseException as error:
        cut(error)
        raise
    if beyond is not None:
        # The stream to the engine is closed before this, because a caller that gets the Done may never resume us.
        done = Done(arrived.usage, arrived.timing(), "length", request.model or model, (hops.BUDGET,))
        yield done.beside("budgeted", beyond)


def _beyond(pages: Sequence[Holding], arrived: Arrived) -> Exception | None:
    found = (page.beyond(arrived) for page in pages)
    return next((error for error in found if error is not None), None)


def _opened(books: tuple[Books, ...], request: Request, model: str, *, served: bool) -> list[Page]:
    """A page in each of `books`; all or none, so that no page is left open for an attempt that does not begin."""
    pages: list[Page] = []
    try:
        for each in books:
            if isinstance(each, _Watch):
                pages.append(each.open(request, model, served=served))
            elif not (served and isinstance(each, ForComputed)):
                pages.append(each.open(request, model))
    except BaseException:
        _void(pages)
        raise
    return pages


def _void(pages: list[Page]) -> None:
    for page in pages:
        if isinstance(page, Holding):
            page.void()


class _Watch:
    """A request's books as a handler of unknown make gets them: passes everything on, and notes whether they were used.

    `outer` are the pages of the handler itself. When it forwards to a stack, that stack's pages take their place.
    """

    def __init__(self, books: tuple[Books, ...]) -> None:
        self._books = books
        self.recorded = False
        self.outer: list[Page] = []

    @property
    def names(self) -> frozenset[str]:
        return frozenset[str]().union(*(each.names for each in self._books))

    def open(self, request: Request, model: str, *, served: bool = False) -> _WatchedPage:
        _void(self.outer)
        return _WatchedPage(self, _opened(self._books, request, model, served=served))


class _WatchedPage:
    def __init__(self, watch: _Watch, pages: list[Page]) -> None:
        self._watch = watch
        self._pages = pages
        self._holding = [page for page in pages if isinstance(page, Holding)]

    def completed(self, arrived: Arrived, done: Done) -> Done:
        self._watch.recorded = True
        for page in self._pages:
            done = page.completed(arrived, done)
        return done

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        self._watch.recorded = True
        for page in self._pages:
            page.cut(arrived, error, served=served)

    def void(self) -> None:
        _void(self._pages)

    def beyond(self, arrived: Arrived) -> Exception | None:
        return _beyond(self._holding, arrived)
