from __future__ import annotations

import asyncio
from decimal import Decimal

import numpy as np
import pytest

from labkit.ledger import Ledger, booked
from labkit.request import EngineError, InvalidRequest, Request, clock, complete, deadlines, within
from labkit.routing.experiment import Thompson, drift, psi, shadow, utility
from tests.routing.engine import Scripted

Q = Request("q", idempotency_key="k")


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


def run_shadowed(inner, other, share, requests=(Q,), **options):
    async def main():
        running = set()
        handler = shadow(inner, other, share, running=running, **options)
        answers, took = [], []
        for request in requests:
            began = clock.now()
            answers.append(await complete(handler, request))
            took.append(clock.now() - began)
        while running:
            await asyncio.wait(running)
        return answers, took

    return clock.run_virtual(main())


def test_the_copy_is_marked_and_the_caller_neither_sees_it_nor_waits_for_it():
    other, pairs = Scripted(("y",), gap=50), []
    (answer,), took = run_shadowed(Scripted(("x",)), other, 1.0, compare=lambda r, m, c: pairs.append((r, m.text, c.text)))
    assert (answer.text, answer.done.route, took) == ("x", ("engine",), [1.0])
    (copy,) = other.asked
    assert (copy.shadow, copy.idempotency_key, copy.messages) == (True, "", Q.messages)
    assert pairs == [(Q, "x", "y")]


def test_a_shadow_that_fails_is_logged_and_breaks_nothing(caplog):
    def bad(*_):
        raise ZeroDivisionError("compare")

    for other, options in [(Scripted(fail_at=0), {}), (Scripted(), {"compare": bad})]:
        (answer,), _ = run_shadowed(Scripted(("x",)), other, 1.0, **options)
        assert answer.text == "x"
    assert [("fell over" in r.message, "compare" in r.message) for r in caplog.records] == [(True, False), (False, True)]


def test_a_share_of_the_traffic_is_copied_and_shadows_are_not_shadowed():
    other = Scripted(gap=0)
    run_shadowed(Scripted(gap=0), other, 0.25, [Q] * 2000)
    assert len(other.asked) == pytest.approx(500, abs=80)
    other = Scripted()
    run_shadowed(Scripted(), other, 1.0, [Request("q", shadow=True)])
    run_shadowed(Scripted(), other, 0.0, [Q] * 100)
    assert not other.asked


def test_a_stuck_shadow_holds_so_many_copies_and_no_more():
    other = Scripted(gap=1000)
    run_shadowed(Scripted(), other, 1.0, [Q] * 20, at_most=3)
    assert len(other.asked) == 3


def test_an_answer_that_fails_has_no_shadow():
    other = Scripted()
    with pytest.raises(EngineError):
        run_shadowed(Scripted(fail_at=1), other, 1.0)
    assert not other.asked


def test_the_shadows_cost_is_in_the_books_and_the_callers_deadline_does_not_cut_it():
    async def main(ledger):
        running = set()
        other = booked(deadlines(Scripted(gap=20)), ledger, provider="lab", price=lambda _, u: Decimal(u.output_tokens))
        await complete(shadow(Scripted(), other, 1.0, running=running), within(Q, 10))
        await asyncio.wait(running)

    with Ledger(":memory:") as ledger:
        clock.run_virtual(main(ledger))
        (row,) = ledger.rows()
        assert (row.shadow, row.outcome, row.cost) == (True, "completed", 2)


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
        lambda: shadow(Scripted(), Scripted(), 1.5),
        lambda: shadow(Scripted(), Scripted(), 0.5, at_most=0),
    ],
)
def test_experiments_that_cannot_be_meant_are_refused(make):
    with pytest.raises(InvalidRequest):
        make()
