"""What each factor did to one segment's cost: the Shapley value of its change, in exact fractions or in arrays of draws."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import factorial, lcm, prod
from typing import TYPE_CHECKING, Any

from labkit.spending.factors import FACTORS, OUTER, Counts, factors, inner, outer
from labkit.spending.shapley import shapley

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ORDERS = factorial(len(FACTORS))
Values = list[tuple[Any, ...]]
"""The value, or values, of each of `FACTORS`."""


def exact_parts(before: Counts, after: Counts, totals: tuple[int, int]) -> tuple[Fraction, ...]:
    """The part of each of `FACTORS`; they add up to the difference. `totals` are the requests of the two whole periods.

    It is computed in whole numbers: of each factor's fractions only the numerators count, over one denominator.
    """
    old, new, ones = _whole(*exact_values(before, after, totals))
    of = (*ones, ones[FACTORS.index("cache hits")], ones[FACTORS.index("unsplit")])  # what `outer` · `inner` is over
    parts = shapley(
        _each_choice(old[:OUTER], new[:OUTER], outer),
        _each_choice(old[OUTER:], new[OUTER:], lambda chosen: inner(chosen, ones[OUTER:])),
    )
    return tuple(Fraction(amount, _ORDERS * prod(of)) for amount in parts)


def exact_values(before: Counts, after: Counts, totals: tuple[int, int]) -> tuple[Values, Values]:
    """Every factor of both periods. One that a period does not know is as in the other; 0 where neither knows it."""
    was, now = factors(before, totals[0], _divided), factors(after, totals[1], _divided)
    return _filled(was, now, _known), _filled(now, was, _known)


def drawn_parts(before: Counts, after: Counts, totals: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[Any]:
    """As `exact_parts`, for many draws at once: arrays, one row a draw and one column a segment; `totals` are columns."""
    was, now = factors(before, totals[0], _divided_arrays), factors(after, totals[1], _divided_arrays)
    old, new = _filled(was, now, _known_arrays), _filled(now, was, _known_arrays)
    outside = _each_choice(old[:OUTER], new[:OUTER], outer)
    inside = _each_choice(old[OUTER:], new[OUTER:], inner)
    return [amount / _ORDERS for amount in shapley(outside, inside)]


def _each_choice(old: Values, new: Values, of: Callable[[Values], Any]) -> list[Any]:
    """`of` for each choice, old or new, of the factors: bit i of the place in the list says new for factor i."""
    sides = list(zip(old, new, strict=True))
    return [of([pair[choice >> bit & 1] for bit, pair in enumerate(sides)]) for choice in range(1 << len(sides))]


def _filled(values: Values, others: Values, known: Callable[[Any, Any], Any]) -> Values:
    return [tuple(map(known, mine, theirs)) for mine, theirs in zip(values, others, strict=True)]


def _divided(amount: Any, of: Any) -> Fraction | None:
    return Fraction(amount, of) if of else None


def _known(value: Fraction | None, other: Fraction | None) -> Fraction:
    return value if value is not None else other if other is not None else Fraction(0)


def _divided_arrays(amount: Any, of: Any) -> Any:
    import numpy as np

    amount, of = np.broadcast_arrays(np.asarray(amount, float), np.asarray(of, float))
    return np.divide(amount, of, out=np.full(of.shape, np.nan), where=of != 0)


def _known_arrays(value: Any, other: Any) -> Any:
    import numpy as np

    return np.nan_to_num(np.where(np.isnan(value), other, value), nan=0.0)


def _whole(old: Values, new: Values) -> tuple[Values, Values, list[int]]:
    """Each factor's fractions as whole numbers over one denominator, and these."""
    ones = [lcm(*(value.denominator for value in (*was, *now))) for was, now in zip(old, new, strict=True)]
    whole = [
        [tuple(value.numerator * (one // value.denominator) for value in of) for of, one in zip(side, ones, strict=True)]
        for side in (old, new)
    ]
    return whole[0], whole[1], ones
