"""Levers as values, and how they are stacked.

A lever is a frozen dataclass of settings with one method, `over`, that puts it around a handler:

    @dataclass(frozen=True)
    class Shout(Lever):
        mark: str = "!"

        def over(self, inner: Handler) -> Handler:
            async def handle(request: Request) -> AsyncGenerator[Event, None]:
                async with aclosing(inner(request)) as events:      # closing us closes what we wrap, down to the engine
                    async for event in events:
                        yield replace(event, text=event.text.upper() + self.mark) if isinstance(event, Chunk) else event
            return handle

    loud = stack(Shout(), engine=engine)

A *chooser* is a lever over several handlers, known by their models' names. `aclosing` carries a cancellation through the
stack: when the caller stops listening, Python closes the outermost generator, and each `aclosing` closes the next one in.
Without it the engine would go on generating, and billing.

Placing a lever does two things, so that no lever has to do them itself. It wraps the handler inside in `metered`, so that
each computed answer is recorded (`labkit.request.books`). And it enforces the request's deadline, wherever that was set
(`labkit.request.deadline`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import ClassVar, Self, TypeGuard

from labkit.request.books import Books, Metered, joined
from labkit.request.deadline import held
from labkit.request.errors import InvalidValue
from labkit.request.handler import Handler
from labkit.request.values import Event, Request


class Lever(ABC):
    """A lever over one handler. Make it a frozen dataclass, check its settings in `__post_init__`, and define `over`."""

    __slots__ = ()

    @property
    def books(self) -> Books | None:
        """The books in which this lever records attempts; None for all levers but `labkit.ledger.Booked`."""
        return None

    @abstractmethod
    def over(self, inner: Handler) -> Handler:
        """`inner` with this lever around it. Called once for each place in a stack; the running state begins here."""

    def __call__(self, inner: Handler) -> Placed:
        """The lever around `inner`, as a handler that can be printed and compared. Raises `InvalidValue` for no handler."""
        return Placed(self, inner)


class Chooser(ABC):
    """A lever over several handlers by name, which asks some of them. Otherwise like `Lever`.

    `renames` says whether it passes a request on with `Request.model` set to the name of the handler that it chose.
    """

    __slots__ = ()
    renames: ClassVar[bool] = True

    @abstractmethod
    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that chooses among `models`."""

    def __call__(self, models: Mapping[str, Handler]) -> Placed:
        """The chooser over `models`, as a handler that can be printed and compared. Raises `InvalidValue` for no mapping."""
        return Placed(self, models)


class Placed:
    """A lever or a chooser in its place: a handler. `inner` is what it was put around."""

    __slots__ = ("_handle", "inner", "lever")

    def __init__(self, lever: Lever | Chooser, inner: Handler | Mapping[str, Handler]) -> None:
        self.lever = lever
        self._handle: Handler
        if isinstance(lever, Chooser):
            if not isinstance(inner, Mapping):
                raise InvalidValue(
                    f"{type(lever).__name__} chooses among models; give it a mapping such as "
                    f'{{"small": …, "large": …}}, not {inner!r:.80}'
                )
            self.inner: Handler | Mapping[str, Handler] = {name: _handler(model) for name, model in inner.items()}
            self._handle = lever.over({name: metered(model, name) for name, model in self.inner.items()})
        else:
            self.inner = _handler(inner)
            self._handle = lever.over(metered(self.inner))

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The stream of events that answers `request`."""
        return held(self._handle, request)

    async def aclose(self) -> None:
        """Close the handlers below that have an `aclose`, such as engines."""
        for inner in self.inner.values() if isinstance(self.inner, Mapping) else (self.inner,):
            close = getattr(inner, "aclose", None)
            if close is not None:
                await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placed) and (self.lever, self.inner) == (other.lever, other.inner)

    def __hash__(self) -> int:
        return hash(type(self.lever))

    def __repr__(self) -> str:
        return f"{self.lever!r}({_shown(self.inner)})"

    def __str__(self) -> str:
        return "\n".join(_lines(self, ""))


def stack(*levers: object, engine: Handler | Mapping[str, Handler]) -> Handler:
    """`stack(a, b, engine=e)` is `a(b(e))`: the first lever is the outermost, the one the request meets first.

    Where the last lever is a chooser, `engine` is a mapping from model names to handlers. `print(stack(…))` shows one lever
    a line. Raises `InvalidValue` for a value that is not a lever, and for levers that do not fit together.
    """
    handler: Handler | Mapping[str, Handler] = engine
    for place, lever in reversed(list(enumerate(levers))):
        if not isinstance(lever, Lever | Chooser):
            told = " (a class: make a value of it first, with its settings)" if isinstance(lever, type) else ""
            raise InvalidValue(f"a stack is made of levers, such as ResponseCache(store); {lever!r:.80} is none{told}")
        if isinstance(lever, Chooser) and place != len(levers) - 1:
            raise InvalidValue(
                f"{type(lever).__name__} chooses among models, so it comes last; put what is below it around each model, "
                f'as in engine={{"small": stack({type(levers[-1]).__name__}(…), engine=small), …}}'
            )
        if isinstance(lever, Lever) and isinstance(handler, Mapping):
            raise InvalidValue(
                f"{type(lever).__name__} takes one handler and was given {len(handler)} models; end the stack with what "
                "chooses among them, such as Cascade(policy, judge)"
            )
        handler = lever(handler)  # type: ignore[arg-type]
    if isinstance(handler, Mapping):
        raise InvalidValue("an engine is one handler; to choose among several, end the stack with a chooser")
    return _handler(handler)


def placed(handler: object) -> Iterator[Placed]:
    """Every lever and chooser in `handler`, the outermost first; it does not look inside handlers of unknown make."""
    if isinstance(handler, Placed):
        yield handler
        for inner in handler.inner.values() if isinstance(handler.inner, Mapping) else (handler.inner,):
            yield from placed(inner)


def books_in(handler: object) -> tuple[Books, ...]:
    """The books of all levers in `handler`, each ledger once."""
    found = [each.lever.books for each in placed(handler) if isinstance(each.lever, Lever)]
    return joined((), tuple(books for books in found if books is not None))


def metered(handler: Handler, model: str = "") -> Handler:
    """`handler`, with each of its attempts recorded in the request's books; a stack records its own, so it is returned.

    `model` is the name to record for a request that names none; by default the handler's own `model`. A lever that asks a
    handler other than the one it was put around (a judge, a shadow) must ask it through `metered`: otherwise no ledger
    records what that costs. Raises `InvalidValue` for a value that is not a handler.
    """
    if isinstance(handler, Metered | Placed):
        return handler
    return Metered(_handler(handler), model or str(getattr(handler, "model", "") or ""))


def _handler(given: object) -> Handler:
    if not _callable(given):
        raise InvalidValue(f"a handler is a function from a request to a stream of events; {given!r:.80} is none")
    return given


def _callable(given: object) -> TypeGuard[Handler]:
    return callable(given) and not isinstance(given, type | Lever | Chooser)


def _shown(inner: object) -> str:
    if isinstance(inner, Mapping):
        return "{" + ", ".join(f"{name!r}: {_shown(model)}" for name, model in inner.items()) + "}"
    name = getattr(inner, "__qualname__", "")
    return name if name and not isinstance(inner, Placed) else repr(inner)


def _lines(handler: object, indent: str) -> Iterator[str]:
    if not isinstance(handler, Placed):
        yield indent + _shown(handler)
        return
    yield indent + repr(handler.lever)
    if isinstance(handler.inner, Mapping):
        for name, model in handler.inner.items():
            yield f"{indent}  {name}:"
            yield from _lines(model, indent + "    ")
    else:
        yield from _lines(handler.inner, indent)
