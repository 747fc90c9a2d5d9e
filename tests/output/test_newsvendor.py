"""The best cap, against trying every cap there is."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from labkit.output import AnswerLengths, CutCosts, best_cap, mean_cost
from labkit.request import InvalidValue

SAMPLES = st.lists(st.integers(0, 40), min_size=1, max_size=20)
COSTS = st.builds(
    CutCosts,
    token=st.floats(0, 3),
    cut=st.floats(0, 60),
    missing=st.floats(0, 10),
    unused=st.floats(0, 3),
    runaway=st.floats(0, 0.9),
)


def by_hand(lengths: list[int], cap: int, costs: CutCosts) -> float:
    total = 0.0
    for length in lengths:
        total += costs.token * min(length, cap)
        if length > cap:
            total += costs.cut + costs.missing * (length - cap)
        else:
            total += costs.unused * (cap - length)
    return (1 - costs.runaway) * total / len(lengths) + costs.runaway * (costs.token * cap + costs.cut)


@given(SAMPLES, COSTS)
def test_no_cap_is_cheaper_than_the_best(lengths: list[int], costs: CutCosts) -> None:
    best = best_cap(AnswerLengths(tuple(lengths)), costs)
    every = {cap: by_hand(lengths, cap, costs) for cap in range(1, 45)}
    assert best.cost == pytest.approx(every[best.tokens])
    assert best.cost <= min(every.values()) + 1e-9 * (1 + abs(best.cost))
    assert best.ends == pytest.approx(sum(length <= best.tokens for length in lengths) / len(lengths))


@given(st.integers(1, 60), COSTS)
def test_the_critical_ratio_is_where_the_best_cap_lies(n: int, costs: CutCosts) -> None:
    """Of lengths from 1 to n, all as likely: no cap is cheaper than the first that lets so large a share end."""
    costs = CutCosts(costs.token, 0.0, costs.missing, costs.unused, costs.runaway)
    assume(costs.missing > costs.token)  # else it pays to cut all
    sample = AnswerLengths(tuple(range(1, n + 1)))
    cap = max(1, next((t for t in range(1, n + 1) if t / n >= costs.critical_ratio - 1e-12), n))
    assert mean_cost(sample, cap, costs) <= best_cap(sample, costs).cost + 1e-9 * (1 + mean_cost(sample, cap, costs))


def test_the_newsvendor_of_the_textbook() -> None:
    """Bought for 1, sold for 4, worthless tomorrow: too little costs 3, too much 1, so three in four days are served."""
    assert CutCosts(token=0, missing=3, unused=1).critical_ratio == 0.75
    assert CutCosts(token=1).critical_ratio == 0.0  # nothing is lost by a cut: cut all
    assert CutCosts(token=1, missing=2).critical_ratio == 1.0  # nothing is lost by a high cap


def test_runaways_pull_the_cap_down() -> None:
    lengths = AnswerLengths(tuple(i * i // 40 for i in range(1, 100)))
    caps = [best_cap(lengths, CutCosts(token=1, cut=400, runaway=share)).tokens for share in (0.0, 0.2, 0.6, 0.8)]
    assert caps[:2] == [245, 245]  # so dear is a cut
    assert 245 > caps[2] > caps[3]


def test_where_a_cut_costs_less_than_an_answer_it_is_cheapest_to_cut_all() -> None:
    lengths = AnswerLengths(tuple(range(10, 110)))
    assert best_cap(lengths, CutCosts(token=1, cut=50)).tokens == 1


def test_what_cannot_be_known_is_refused() -> None:
    with pytest.raises(InvalidValue, match="1 of 3 answers were cut"):
        best_cap(AnswerLengths((4, 5), (6,)), CutCosts(1))
    for wrong in ({"token": -1}, {"token": 1, "runaway": 1.0}, {"token": 1, "cut": -2}):
        with pytest.raises(InvalidValue, match="costs are 0 or more"):
            CutCosts(**wrong)
