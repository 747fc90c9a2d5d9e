"""The bounds of routing against all routers there are, on tables small enough to try them all."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import InvalidValue
from labkit.routing import Outcomes, at_threshold, coin_cost, coin_quality, least_cost, oracle_cost

BITS = st.sampled_from([0.0, 1.0])


@st.composite
def tables(draw):
    n = draw(st.integers(1, 7))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    cost = st.sampled_from([0.0, 1.0, 1.5, 4.0])
    return Outcomes(column(st.sampled_from([0.1, 0.5, 0.9])), column(BITS), column(BITS), column(cost), column(cost))


@given(tables(), st.floats(0, 1))
def test_no_choice_of_models_is_cheaper_than_the_oracle(table, quality):
    costs = []
    for picks in product((False, True), repeat=len(table)):
        up = np.array(picks)
        if np.where(up, table.right_large, table.right_small).mean() >= quality - 1e-9:
            costs.append(np.where(up, table.cost_large, table.cost_small).mean())
    assert oracle_cost(table, quality) == pytest.approx(min(costs, default=math.nan), nan_ok=True)


@given(tables(), st.floats(0, 1), st.sampled_from(["before", "cascade"]))
def test_the_least_cost_is_that_of_the_cheapest_threshold_that_is_good_enough(table, quality, way):
    tried = [*table.score, math.inf]
    enough = [t for t in tried if at_threshold(t, "quality", way)(table) >= quality - 1e-9]
    costs = [at_threshold(t, "cost", way)(table) for t in enough]
    assert least_cost(table, quality, way) == pytest.approx(min(costs, default=math.nan), nan_ok=True)


@given(tables(), st.floats(0, 1))
def test_a_coin_costs_and_answers_as_the_mixture_of_both_models(table, share):
    cost = share * table.cost_large.mean() + (1 - share) * table.cost_small.mean()
    quality = share * table.right_large.mean() + (1 - share) * table.right_small.mean()
    if table.cost_large.mean() != table.cost_small.mean():
        assert coin_quality(table, cost) == pytest.approx(quality)
    else:
        assert math.isnan(coin_quality(table, cost))
    if table.right_large.mean() != table.right_small.mean():
        assert coin_cost(table, quality) == pytest.approx(cost)
    else:
        assert math.isnan(coin_cost(table, quality))


def test_the_oracle_refuses_half_marks():
    with pytest.raises(InvalidValue, match="right \\(1\\) and wrong \\(0\\)"):
        oracle_cost(Outcomes([0.5], [0.5], [1.0], [1.0], [2.0]), 0.9)
