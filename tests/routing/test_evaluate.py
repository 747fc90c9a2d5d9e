from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.request import InvalidValue
from labkit.routing.evaluate import (
    Outcomes,
    at_threshold,
    baselines,
    bootstrap,
    cascade_cost,
    expected_cascade_cost,
    frontier,
)
from labkit.routing.metrics import apgr, cpt, ece, knn_scores, pgr, reliability


def made(n=500, seed=0, known=1.0):
    """Requests that the small model gets right with probability `score`, were the score fully known."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    score = np.where(rng.random(n) < known, p, rng.random(n))
    small = rng.random(n) < p
    large = rng.random(n) < 0.5 + p / 2
    return Outcomes(score, small, large, rng.uniform(1, 2, n), 10 - 5 * p)


@st.composite
def tables(draw):
    n = draw(st.integers(1, 12))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    score, bit, cost = st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 1.0]), st.floats(0, 10)
    return Outcomes(column(score), column(bit), column(bit), column(cost), column(cost))


@given(tables(), st.sampled_from(["before", "cascade"]))
def test_the_frontier_is_what_routing_each_request_by_hand_gives(table, way):
    curve = frontier(table, way)
    assert list(curve["threshold"]) == [*sorted(set(table.score)), np.inf]
    for _, row in curve.iterrows():
        quality = cost = up = 0.0
        for i in range(len(table)):
            if table.score[i] >= row["threshold"]:
                quality, cost = quality + table.right_small[i], cost + table.cost_small[i]
            else:
                quality, up = quality + table.right_large[i], up + 1
                cost += table.cost_large[i] + (table.cost_small[i] if way == "cascade" else 0)
        n = len(table)
        assert (row["quality"], row["cost"], row["share_large"]) == pytest.approx((quality / n, cost / n, up / n))
        assert at_threshold(row["threshold"], "quality", way)(table) == pytest.approx(quality / n)
        assert at_threshold(row["threshold"], "cost", way)(table) == pytest.approx(cost / n)


@given(tables())
def test_efficient_points_are_those_that_nobody_dominates(table):
    curve = frontier(table)
    points = list(zip(curve["quality"], curve["cost"], strict=True))
    for (quality, cost), efficient in zip(points, curve["efficient"], strict=True):
        dominated = any((q >= quality and c < cost) or (q > quality and c <= cost) for q, c in points)
        if dominated:
            assert not efficient
    assert {points[i] for i in np.flatnonzero(curve["efficient"])} == {
        (q, c) for q, c in points if not any((a >= q and b < c) or (a > q and b <= c) for a, b in points)
    }


def test_baselines_as_worked_by_hand():
    table = Outcomes([0.1, 0.2, 0.3, 0.4], [1, 0, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1], [4, 4, 4, 8])
    found = baselines(table)
    assert tuple(found.loc["always small"]) == (0.5, 1)
    assert tuple(found.loc["always large"]) == (0.5, 5)
    assert tuple(found.loc["best single"]) == (0.5, 1)
    assert tuple(found.loc["random half"]) == (0.5, 3)
    assert tuple(found.loc["oracle"]) == (0.75, 1.75)


@given(tables())
def test_no_threshold_beats_the_oracle_and_the_ends_are_the_single_models(table):
    curve, base = frontier(table), baselines(table)
    assert curve["quality"].max() <= base.loc["oracle", "quality"] + 1e-9
    assert curve["quality"].iloc[0] == pytest.approx(base.loc["always small", "quality"])
    assert tuple(curve[["quality", "cost"]].iloc[-1]) == pytest.approx(tuple(base.loc["always large"]))


def test_the_expected_cost_of_a_cascade_misses_by_a_covariance():
    table = made(2000)
    for threshold in (0.0, 0.3, 0.7, 2.0):
        found = cascade_cost(table, threshold)
        up = (table.score < threshold).astype(float)
        missing = (up * table.cost_large).mean() - up.mean() * table.cost_large.mean()
        assert found.measured - found.expected == pytest.approx(missing)
        assert found.measured >= found.expected - 1e-12, "hard requests cost the large model more here"
    assert expected_cascade_cost(1, 0.75, 8) == 3
    with pytest.raises(InvalidValue):
        expected_cascade_cost(1, 1.5, 8)


def hand():
    """Small right on 2 of 4, large on all; the score sends up one that is wrong, one that is right, then the rest."""
    return Outcomes([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], [1, 1, 1, 1], [1] * 4, [2] * 4)


def test_routellm_metrics_as_worked_by_hand():
    # quality at c = 0, 1/4, 2/4, 3/4, 1 is 2/4, 3/4, 3/4, 1, 1, so PGR is 0, 1/2, 1/2, 1, 1
    assert pgr(0.75, 0.5, 1.0) == 0.5
    assert apgr(hand()) == pytest.approx((0 / 2 + 1 / 2 + 1 / 2 + 1 + 1 / 2) / 4)
    assert cpt(hand(), 0.5) == pytest.approx(0.25)
    assert cpt(hand(), 0.25) == pytest.approx(0.125)
    assert cpt(hand(), 0.8) == pytest.approx(0.5 + 0.6 * 0.25)
    assert cpt(hand(), 1.0) == pytest.approx(0.75)
    assert cpt(hand(), 0.0) == 0


def test_the_first_crossing_counts_where_quality_falls_again():
    table = Outcomes([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 0], [1, 0, 1, 1], [1] * 4, [2] * 4)
    # quality at c = 0 … 1 is 1/4, 2/4, 1/4, 2/4, 3/4: a PGR of 1/2 is there at c = 1/4 already
    assert cpt(table, 0.5) == pytest.approx(0.25)


@given(tables(), st.fractions(0, 1, max_denominator=20))
def test_cpt_is_the_first_crossing_in_exact_arithmetic(table, recovered):
    small, large = (Fraction(int(column.sum()), len(table)) for column in (table.right_small, table.right_large))
    if large <= small:
        assert math.isnan(cpt(table, float(recovered)))
        return
    points = []
    for threshold in [*sorted(set(table.score)), np.inf]:
        up = table.score < threshold
        quality = Fraction(int(np.where(up, table.right_large, table.right_small).sum()), len(table))
        points.append((Fraction(int(up.sum()), len(table)), (quality - small) / (large - small)))
    expected = Fraction(0)
    for (c0, q0), (c1, q1) in pairwise(points):
        if q0 >= recovered:
            break
        expected = c1
        if q1 >= recovered:
            expected = c0 + (recovered - q0) / (q1 - q0) * (c1 - c0)
            break
    assert cpt(table, float(recovered)) == pytest.approx(float(expected), abs=1e-6)


def test_a_large_model_that_is_not_better_has_no_gap_to_recover():
    table = Outcomes([0.1, 0.2], [1, 0], [0, 1], [1, 1], [2, 2])
    assert math.isnan(apgr(table))
    assert math.isnan(cpt(table, 0.5))


def test_a_random_router_recovers_half_and_a_perfect_one_more():
    blind = np.mean([apgr(made(400, seed, known=0.0)) for seed in range(40)])
    seeing = np.mean([apgr(made(400, seed)) for seed in range(10)])
    assert blind == pytest.approx(0.5, abs=0.03)
    assert seeing > 0.6


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say():
    # Always small on `made` is right with probability E[p] = 1/2.
    hits = 0
    for seed in range(200):
        found = bootstrap(made(100, seed), at_threshold(-1, "quality"), seed=seed, resamples=300, level=0.9)
        hits += found.low <= 0.5 <= found.high
    assert 0.84 <= hits / 200 <= 0.96


def test_bootstrap_is_seeded_and_paired():
    table = made(300)

    def gain(outcomes):
        return at_threshold(0.5, "quality")(outcomes) - at_threshold(-1, "quality")(outcomes)

    price = at_threshold(0.5, "cost")
    assert bootstrap(table, price, seed=1) == bootstrap(table, price, seed=1) != bootstrap(table, price, seed=2)
    one = bootstrap(table, gain, seed=1)
    assert one.low < gain(table) < one.high
    apart = bootstrap(table, at_threshold(0.5, "quality"), seed=1)
    assert one.high - one.low < 1.4 * (apart.high - apart.low), "unpaired, the widths would add up"


def test_resamples_without_a_value_are_counted():
    table = Outcomes([0.1, 0.2], [1, 0], [1, 1], [1, 1], [2, 2])
    found = bootstrap(table, apgr, resamples=400)
    assert found.undefined == pytest.approx(100, abs=40), "a quarter of the resamples draw the first request twice"


def test_ece_and_its_table_as_worked_by_hand():
    score, right = [0.0, 0.1, 0.15, 0.9, 1.0], [0, 1, 0, 1, 1]
    table = reliability(score, right)
    assert list(table["low"]) == pytest.approx([0.0, 0.1, 0.8, 0.9])
    assert list(table["count"]) == [2, 1, 1, 1]
    assert list(table["right"]) == [0.5, 0, 1, 1]
    assert ece(score, right) == pytest.approx((2 * 0.45 + 0.15 + 0.1 + 0) / 5)
    assert ece([0.7] * 10, [1] * 7 + [0] * 3) == pytest.approx(0)


def test_knn_is_a_brute_force_vote():
    rng = np.random.default_rng(0)
    known, asked, right = rng.normal(size=(60, 5)), rng.normal(size=(9, 5)), rng.integers(0, 2, 60)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    nearest = np.argsort(-unit(asked) @ unit(known).T, axis=1)[:, :7]
    assert knn_scores(known, right, asked, 7) == pytest.approx(right[nearest].mean(axis=1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Outcomes([1], [1, 0], [1], [1], [1]), "shapes"),
        (lambda: Outcomes([], [], [], [], []), "at least one"),
        (lambda: Outcomes([math.nan], [1], [1], [1], [1]), "not finite"),
        (lambda: Outcomes([1], [2], [1], [1], [1]), "grades run"),
        (lambda: Outcomes([1], [1], [1], [-1], [1]), "below 0"),
        (lambda: frontier(hand(), "after"), "'after'"),
        (lambda: cpt(hand(), 50), "50 % is 0.5"),
        (lambda: ece([1.2], [1]), "calibrate them"),
        (lambda: ece([1.0], [1, 0]), "one verdict"),
        (lambda: knn_scores([[1.0]], [1], [[1.0]], 2), "k is 2"),
        (lambda: knn_scores([[1.0]], [1, 0], [[1.0]], 1), "one width"),
        (lambda: bootstrap(hand(), apgr, level=95), "level"),
    ],
)
def test_tables_and_questions_that_make_no_sense_are_refused(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()
