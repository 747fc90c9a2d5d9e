"""The Shapley value: what each of several changes did, averaged over every order in which they could have come."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Any


def shapley(outside: Sequence[Any], inside: Sequence[Any]) -> list[Any]:
    """The Shapley value of each player of a game that is a product, times n!, so that whole numbers stay whole.

    There are two teams, and what a coalition is worth is `outside` of its members in the first team times `inside` of those
    in the second: bit i of an index is set where player i of that team is in it. The first team's players come first in the
    result. The values may be numbers or arrays; lists of 1 stand for a team without players.

    Source: Shapley, "A value for n-person games", 1953: φᵢ = Σ over S without i of |S|! (n − |S| − 1)! / n! · (v(S ∪ i) −
    v(S)). The weight depends on the size of S only, so each team is first added up by size: 2^a + 2^b values are looked at
    and not 2^(a + b).
    """
    first, second = len(outside).bit_length() - 1, len(inside).bit_length() - 1
    weights = [factorial(size) * factorial(first + second - size - 1) for size in range(first + second)]
    all_outside, all_inside = _by_size(outside), _by_size(inside)
    return [
        *(_weighed(_gains(outside, player), all_inside, weights) for player in range(first)),
        *(_weighed(_gains(inside, player), all_outside, weights) for player in range(second)),
    ]


def _by_size(worth: Sequence[Any]) -> list[Any]:
    """The sum of `worth` over the coalitions of each size, from 0."""
    sums: list[Any] = [0] * len(worth).bit_length()
    for coalition, value in enumerate(worth):
        sums[coalition.bit_count()] = sums[coalition.bit_count()] + value
    return sums


def _gains(worth: Sequence[Any], player: int) -> list[Any]:
    """What `player` adds to the coalitions of each size, from 0, that are without it."""
    bit = 1 << player
    sums: list[Any] = [0] * (len(worth).bit_length() - 1)
    for coalition, value in enumerate(worth):
        if not coalition & bit:
            sums[coalition.bit_count()] = sums[coalition.bit_count()] + (worth[coalition | bit] - value)
    return sums


def _weighed(gains: Sequence[Any], others: Sequence[Any], weights: Sequence[int]) -> Any:
    total: Any = 0
    for size, gain in enumerate(gains):
        for more, other in enumerate(others):
            total = total + weights[size + more] * (gain * other)
    return total
