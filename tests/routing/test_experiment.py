from __future__ import annotations

import numpy as np
import pytest

from labkit.request import InvalidValue
from labkit.routing.experiment import Thompson, drift, psi, utility


def play(means, rounds, seed):
    rng, thompson = np.random.default_rng(seed), Thompson(list(means), seed)
    regret = []
    for _ in range(rounds):
        chosen = thompson.choose()
        thompson.learn(chosen, float(rng.random() < means[chosen]))
        regret.append(max(means.values()) - means[chosen])
    return thompson, np.cumsum(regret)


def test_thompson_settles_on_the_best_threshold_and_its_regret_flattens():
    means = {0.2: 0.5, 0.5: 0.7, 0.8: 0.6}
    halves = []
    for seed in range(10):
        thompson, regret = play(means, 3000, seed)
        assert max(thompson.tries, key=thompson.tries.get) == 0.5
        assert sum(thompson.tries.values()) == pytest.approx(3000)
        assert thompson.means[0.5] == pytest.approx(0.7, abs=0.05)
        halves.append((regret[1499], regret[-1] - regret[1499]))
    first, second = np.mean(halves, axis=0)
    assert first + second < 3000 * 0.1 / 4, "a quarter of what choosing blindly loses"
    assert second < first / 2


def test_thompson_explores_thresholds_that_look_bad_early():
    thompson = Thompson([0.1, 0.9], seed=1)
    thompson.learn(0.9, 0.0)
    assert {thompson.choose() for _ in range(50)} == {0.1, 0.9}


def test_utility_is_0_for_the_dearest_wrong_answer_and_1_for_a_free_right_one():
    assert utility(0, 2, worth=6, cost_max=2) == 0
    assert utility(1, 0, worth=6, cost_max=2) == 1
    assert utility(1, 1, worth=6, cost_max=2) == 7 / 8


def test_psi_as_worked_by_hand():
    many = 10**9
    found = psi({"a": 5 * many, "b": 5 * many}, {"a": 6 * many, "b": 4 * many})
    assert found == pytest.approx(0.1 * np.log(1.2) - 0.1 * np.log(0.8))
    assert psi({"a": 3}, {"a": 3}) == 0
    assert psi({"a": 9}, {"b": 9}) < 10, "finite, although nothing is shared"


def samples(shares, size, rng):
    return [str(kind) for kind in rng.choice(len(shares), size, p=shares)]


@pytest.mark.parametrize("size", [15, 2000])
def test_chance_alone_is_called_drift_no_more_often_than_alpha(size):
    rng = np.random.default_rng(size)
    shares = [0.4, 0.3, 0.2, 0.1]
    found = [drift(samples(shares, size, rng), samples(shares, size, rng), alpha=0.05, matters=0.0) for _ in range(200)]
    assert np.mean([each.moved for each in found]) <= 0.1
    if size == 2000:
        # psi between samples of one mix is about (k − 1)·(1/n + 1/m)
        assert np.mean([each.psi for each in found]) == pytest.approx(3 * 2 / size, rel=0.15)
    else:
        assert np.mean([each.psi > 0.25 for each in found]) > 0.3, "the rule of thumb alone cries wolf"


def test_a_mix_that_moved_is_told_with_the_kind_that_moved_most():
    rng = np.random.default_rng(0)
    found = drift(samples([0.6, 0.2, 0.2], 1000, rng), samples([0.3, 0.5, 0.2], 1000, rng))
    assert found.moved
    assert found.kind in ("0", "1")
    assert abs(found.change) == pytest.approx(0.3, abs=0.06)


def test_a_sure_but_small_change_is_not_worth_an_alarm():
    found = drift(["a"] * 50_000 + ["b"] * 50_000, ["a"] * 51_500 + ["b"] * 48_500)
    assert found.p_value < 1e-6
    assert not found.moved


def test_a_few_requests_are_tested_exactly():
    # Of the 20 ways to deal three a and three b to two samples of three, 2 are as uneven as this one.
    assert drift("aaa", "bbb").p_value == pytest.approx(2 / 20, abs=0.01)


def test_one_kind_of_traffic_cannot_drift():
    assert drift("aaa", "aa").p_value == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thompson([]),
        lambda: Thompson([0.5, 0.5]),
        lambda: Thompson([1.5]),
        lambda: Thompson([0.5]).learn(0.4, 1),
        lambda: Thompson([0.5]).learn(0.5, 2),
        lambda: utility(1, 3, worth=1, cost_max=2),
        lambda: psi({}, {"a": 1}),
        lambda: drift([], ["a"]),
    ],
)
def test_experiments_that_cannot_be_meant_are_refused(make):
    with pytest.raises(InvalidValue):
        make()
