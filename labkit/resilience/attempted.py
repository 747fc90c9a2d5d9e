"""The attempts that were made below a retry, as the ledger's books see them: what a retry budget in money settles by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from labkit.request import Arrived, Done, Request


@dataclass(frozen=True, slots=True)
class Attempted:
    """One attempt that has ended.

    `model` is the name by which it was asked. `done` is None where no whole answer came; then `error` ended it, and what
    had come is in `arrived`. `served` says that a cache was giving it, at no cost; a whole answer from a cache says so by
    its usage.
    """

    model: str
    arrived: Arrived
    done: Done | None = None
    error: BaseException | None = None
    served: bool = False


@dataclass(eq=False)
class Watch:
    """Books (`labkit.request.Books`) that list in `ended` the attempts made below one attempt of a retry.

    `names` holds the marks of the retry's budgets, so that a retry further in knows which budgets count the request
    already.
    """

    marks: Iterable[str] = ()
    ended: list[Attempted] = field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        """Names that no ledger has."""
        return frozenset((*self.marks, f"watch-{id(self)}"))

    def open(self, request: Request, model: str) -> _Page:
        """The page of one attempt."""
        return _Page(self, request.model or model)


@dataclass(slots=True, eq=False)
class _Page:
    watch: Watch
    model: str

    def completed(self, arrived: Arrived, done: Done) -> Done:
        self.watch.ended.append(Attempted(self.model, arrived, done))
        return done

    def cut(self, arrived: Arrived, error: BaseException | None, *, served: bool) -> None:
        self.watch.ended.append(Attempted(self.model, arrived, None, error, served))
