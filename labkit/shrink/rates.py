"""How near to the length that was asked for a shrinker comes, by the length of the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from labkit.request import InvalidValue, Request
from labkit.shrink.dropping import WordDropper


@dataclass(frozen=True, slots=True)
class Adherence:
    """Tokens of one prompt's texts: `before`, `asked` for, and `got`, in the tokens of the model that will answer."""

    before: int
    asked: int
    got: int

    @property
    def held_back(self) -> bool:
        """Whether more is left than was asked for: the rest is protected."""
        return self.got > self.asked


@dataclass(frozen=True, slots=True)
class AdherenceRow:
    """The `n` prompts of `low` to under `high` tokens, and the mean shares of their tokens that were `asked` for and `got`.

    `worst` is the largest distance between the two among them, in tokens; `held_back` are the prompts whose
    protected text forbade the length.
    """

    low: int
    high: int
    n: int
    asked: float
    got: float
    worst: int
    held_back: int


async def adherence(shrinker: WordDropper, requests: Iterable[Request]) -> list[Adherence]:
    """Asked and got, for each of `requests`. Nothing is sent. Raises what `shrinker.shrink` raises."""
    found = []
    for request in requests:
        shrunk = await shrinker.shrink(request)
        before, got = (sum(shrinker.count(m.content) for m in messages) for messages in (shrunk.before, shrunk.after))
        found.append(Adherence(before, min(before, shrinker.asked(shrunk.before)), got))
    return found


def by_length(found: Sequence[Adherence], edges: Sequence[int] = (150, 1000, 5000)) -> list[AdherenceRow]:
    """`found` by the prompt's tokens, with a new row from each of `edges` on; rows without prompts are left out.

    Raises `InvalidValue` for edges that do not rise.
    """
    if list(edges) != sorted(set(edges)) or (edges and edges[0] < 1):
        raise InvalidValue(f"edges are {list(edges)}; give token counts from 1 that rise")
    limits = [0, *edges, max([row.before + 1 for row in found] + [edges[-1] + 1 if edges else 1])]
    rows = []
    for low, high in pairwise(limits):
        inside = [row for row in found if low <= row.before < high]
        if inside:
            rows.append(
                AdherenceRow(
                    low,
                    high,
                    len(inside),
                    sum(row.asked / row.before for row in inside) / len(inside),
                    sum(row.got / row.before for row in inside) / len(inside),
                    max(abs(row.got - row.asked) for row in inside),
                    sum(row.held_back for row in inside),
                )
            )
    return rows
