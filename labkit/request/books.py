"""Who records an attempt: the handler that computes or serves the answer, once. Handlers that only forward record nothing.

`labkit.ledger.Booked` puts books on every request that passes through it. Handlers below it in the stack find the books on
the request. A lever above it (a cache that answers by itself) finds them in the handler that the lever was put around. So it
makes no difference where in a stack the ledger stands: `metered` records an engine's answers, `served` a cache's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

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


class Books(Protocol):
    """What keeps attempts. `names` identifies the ledgers in which it keeps them."""

    @property
    def names(self) -> frozenset[str]:
        """The names of the ledgers, different from those of all other ledgers."""
        ...

    def open(self, request: Request, model: str) -> Page:
        """Begin a page, before anything is paid for. `model` is the name to record for a request that names none.

        Raises a `LabError` for a request that could never be recorded (`labkit.ledger` raises `InvalidRow`).
        """
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
    pages = [each.open(request, model) for each in books]  # first: a request that cannot be recorded must not cost anything
    arrived = Arrived.now()
    over = False
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    arrived.note(event)
                elif not over:
                    over = True
                    if watch is None or not watch.recorded:
                        for page in pages:
                            event = page.completed(arrived, event)
                yield event
        if not over and (watch is None or not watch.recorded):
            over = True
            for page in pages:
                page.cut(arrived, None, served=served)
    except BaseException as error:
        if not over and (watch is None or not watch.recorded):
            for page in pages:
                page.cut(arrived, error, served=served)
        raise


class _Watch:
    """A request's books as a handler of unknown make gets them: passes everything on, and notes whether they were used."""

    def __init__(self, books: tuple[Books, ...]) -> None:
        self._books = books
        self.recorded = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset[str]().union(*(each.names for each in self._books))

    def open(self, request: Request, model: str) -> _WatchedPage:
        return _WatchedPage(self, [each.open(request, model) for each in self._books])


class _WatchedPage:
    def __init__(self, watch: _Watch, pages: list[Page]) -> None:
        self._watch = watch
        self._pages = pages

    def completed(self, arrived: Arrived, done: Done) -> Done:
        self._watch.recorded = True
        for page in self._pages:
            done = page.completed(arrived, done)
        return done

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        self._watch.recorded = True
        for page in self._pages:
            page.cut(arrived, error, served=served)
