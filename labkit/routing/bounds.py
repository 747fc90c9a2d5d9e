"""What a router is measured against: a coin that costs as much, a router that knows the outcomes, and its own best point."""

from __future__ import annotations

import math

import numpy as np

from labkit.request import InvalidValue
from labkit.routing.evaluate import Outcomes, Way, frontier

_ROUNDING = 1e-9  # sums of floats may end just short of a quality that is reached


def least_cost(outcomes: Outcomes, quality: float, way: Way = "before") -> float:
    """The least mean cost at which a threshold reaches this mean `quality` (0 to 1); NaN where none does."""
    curve = frontier(outcomes, way)
    return float(curve[curve.quality >= quality - _ROUNDING].cost.min())


def oracle_cost(outcomes: Outcomes, quality: float) -> float:
    """The least mean cost at which any router, one that knows the outcomes included, reaches this mean `quality` (0 to 1).

    It pays one answer for each request: the cheaper one, or the right one where that is needed. NaN where no router reaches
    it. Raises `InvalidValue` for grades other than 0 and 1: with those in between, the least cost is a knapsack problem.
    """
    grades = np.concatenate([outcomes.right_small, outcomes.right_large])
    if not np.isin(grades, (0.0, 1.0)).all():
        raise InvalidValue("some grades lie between 0 and 1; the oracle's cost is known for right (1) and wrong (0) only")
    small = (outcomes.cost_small < outcomes.cost_large) | (
        (outcomes.cost_small == outcomes.cost_large) & (outcomes.right_small >= outcomes.right_large)
    )
    right = np.where(small, outcomes.right_small, outcomes.right_large)
    other = np.where(small, outcomes.right_large, outcomes.right_small)
    more = np.sort(np.abs(outcomes.cost_large - outcomes.cost_small)[other > right])  # for each answer put right
    wanted = max(0, math.ceil((quality - _ROUNDING) * len(outcomes) - float(right.sum())))
    if wanted > more.size:
        return math.nan
    return float((np.minimum(outcomes.cost_small, outcomes.cost_large).sum() + more[:wanted].sum()) / len(outcomes))


def coin_quality(outcomes: Outcomes, cost: float) -> float:
    """The mean quality of a coin that picks the model for each request and costs `cost` on average.

    It lies on the straight line through always small and always large, also beyond its ends. NaN where both cost the same.
    """
    small, large = float(outcomes.cost_small.mean()), float(outcomes.cost_large.mean())
    if small == large:
        return math.nan
    gained = float(outcomes.right_large.mean() - outcomes.right_small.mean())
    return float(outcomes.right_small.mean()) + gained * (cost - small) / (large - small)


def coin_cost(outcomes: Outcomes, quality: float) -> float:
    """The mean cost of a coin with this mean `quality`: the opposite of `coin_quality`; NaN where both are equally good."""
    small, large = float(outcomes.right_small.mean()), float(outcomes.right_large.mean())
    if small == large:
        return math.nan
    dearer = float(outcomes.cost_large.mean() - outcomes.cost_small.mean())
    return float(outcomes.cost_small.mean()) + dearer * (quality - small) / (large - small)
