"""Which of many texts to keep for a question: the first ones, the nearest, or the nearest that are not all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labkit.embeddings import Embedder, Vectors
from labkit.request import InvalidValue
from labkit.shrink.vectors import Remembered

Worth = NDArray[np.float64]
Worths = Callable[[Sequence[int]], Worth]
"""From what is chosen already (numbers of texts), what each text is worth now."""


class Pick(Protocol):
    """A way to choose: for a question and texts, what each text is worth, given those that are chosen already."""

    def worths(self, question: str, texts: Sequence[str], /) -> Worths:
        """Called once for a question. The next to be chosen is the one worth most; of equals, the first."""
        ...


def fixed(worth: Sequence[float]) -> Worths:
    """What each text is worth, whatever else is chosen."""
    found = np.asarray(worth, np.float64)
    return lambda _: found


@dataclass(frozen=True)
class First:
    """In the order of the pool, whatever the question: the same for all requests, so a prefix cache serves them."""

    def worths(self, _: str, texts: Sequence[str], /) -> Worths:
        """Falls from text to text."""
        return fixed([-float(n) for n in range(len(texts))])


@dataclass(frozen=True)
class Nearest:
    """By similarity to the question: the cosine of their vectors from `embedder`.

    A text is encoded once (`Remembered`), so a pool costs time with the first question only.
    """

    embedder: Embedder
    _known: Remembered = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", Remembered(self.embedder))

    def worths(self, question: str, texts: Sequence[str], /) -> Worths:
        """The cosines, −1 to 1."""
        asked, known = _vectors(self._known, question, texts)
        return fixed((known @ asked).tolist())


@dataclass(frozen=True)
class Diverse:
    """By similarity to the question, less the similarity to the most similar text that is chosen already.

    Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): the next is the d for which
    λ·sim(d, question) − (1 − λ)·max over chosen c of sim(d, c) is greatest. `weight` is λ, 0 to 1: at 1 it is `Nearest`.
    Raises `InvalidValue` for another weight.
    """

    embedder: Embedder
    weight: float = 0.5
    _known: Remembered = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", Remembered(self.embedder))
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not 0 <= self.weight <= 1:
            raise InvalidValue(f"weight is {self.weight!r:.80}; use a number from 0 (only unlike) to 1 (only near)")

    def worths(self, question: str, texts: Sequence[str], /) -> Worths:
        """The marginal relevances, −1 to 1."""
        asked, known = _vectors(self._known, question, texts)
        near = (known @ asked).astype(np.float64)

        def worths(chosen: Sequence[int]) -> Worth:
            if not chosen:
                return self.weight * near
            alike = (known @ known[list(chosen)].T).max(axis=1)
            worth: Worth = self.weight * near - (1 - self.weight) * alike
            return worth

        return worths


def greedy(worths: Worths, sizes: Sequence[int], most: int | None = None, room: int | None = None) -> list[int]:
    """The numbers of the texts chosen one by one, always the one worth most that still fits; of equals, the first.

    Ends after `most` texts, and when none fits: `sizes` are their tokens, `room` is how many there is place for.
    """
    left = np.inf if room is None else float(room)
    size = np.asarray(sizes, np.float64)
    free = np.ones(len(size), bool)
    chosen: list[int] = []
    while most is None or len(chosen) < most:
        open_ = free & (size <= left)
        if not open_.any():
            break
        best = int(np.argmax(np.where(open_, worths(chosen), -np.inf)))
        chosen.append(best)
        free[best] = False
        left -= size[best]
    return chosen


def _vectors(known: Remembered, question: str, texts: Sequence[str]) -> tuple[Vectors, Vectors]:
    rows = known.encode([question, *texts])
    return rows[0], rows[1:]
