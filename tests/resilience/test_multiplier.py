"""The cost multiplier in closed form, against dice, and against a ledger that the levers filled."""

from __future__ import annotations

import math
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import EngineError, InvalidValue, Request, complete, run_virtual, stack
from labkit.resilience import Backoff, Mishap, Mishaps, Retry, multiplier_of, with_failures, with_timeouts

RATES = self_defined("test", "1", "10").rates


def simulated(n, prompt, output, q, written, attempts, resumed, seed=1):
    """Tokens read, written, useful of `n` requests by dice."""
    dice, read, wrote, useful = Random(seed), 0.0, 0.0, 0.0
    for _ in range(n):
        had = 0.0
        for _attempt in range(attempts):
            before = had if resumed else 0.0
            read += prompt + before
            if dice.random() >= q:
                wrote += output - before
                useful += prompt + output
                break
            wrote += written * (output - before)
            had = before + written * (output - before)
    return read / n, wrote / n, useful / n


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(("q", "written", "attempts"), [(0.1, 0.5, 3), (0.5, 0.9, 4), (0.3, 0.0, 2)])
def test_failures_against_dice(q, written, attempts, resumed):
    exact = with_failures(100, 50, q, written, attempts, resumed=resumed)
    read, wrote, useful = simulated(20_000, 100, 50, q, written, attempts, resumed)
    assert exact.paid_input == pytest.approx(read, rel=0.03)
    assert exact.paid_output == pytest.approx(wrote, rel=0.03)
    assert exact.useful_input + exact.useful_output == pytest.approx(useful, rel=0.03)


@given(st.floats(0, 0.95), st.floats(0, 1), st.integers(1, 8), st.integers(0, 1000))
def test_the_number_of_attempts_drops_out(q, written, attempts, prompt):
    expected = 1 + q / (1 - q) * (prompt + written * 50) / (prompt + 50)
    assert with_failures(prompt, 50, q, written, attempts).multiplier == pytest.approx(expected)


@given(st.floats(0, 0.95), st.floats(0.01, 1), st.integers(2, 8))
def test_resuming_writes_no_token_twice_and_pays_where_reading_is_cheap_enough(q, written, attempts):
    """It pays if, and only if, what an attempt may write again is dearer than reading it: (1 − q + q·w) · p_out > p_in."""
    found = with_failures(100, 50, q, written, attempts, resumed=True)
    again = with_failures(100, 50, q, written, attempts)
    assert found.paid_output <= min(again.paid_output, 50) + 1e-9
    for price in ("10", "1.5"):
        rates = self_defined("test", "1", price).rates
        margin = q * ((1 - q + q * written) * float(price) - 1)
        if abs(margin) > 1e-6:
            assert (found.in_money(rates) < again.in_money(rates)) == (margin > 0), (price, margin)


def test_one_late_time_out_nearly_doubles_the_output():
    """The claim: a request cut at 90 % and asked again pays 1.9 times its output. In the mean of q: 1 + q/(1−q) · 0.9."""
    assert with_failures(0, 100, 0.5, 0.9, 50).output_multiplier == pytest.approx(1.9)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 40), st.integers(1, 5))
def test_time_outs_by_brute_force(lengths, fits, attempts):
    for again in ("same", "resumed"):
        read = wrote = useful = whole = 0
        for length in lengths:
            had = 0
            for _ in range(attempts):
                before = had if again == "resumed" else 0
                read += 7 + before
                step = min(fits, length - before)
                wrote += step
                had = before + step
                if had == length:
                    useful, whole = useful + 7 + length, whole + 1
                    break
        found = with_timeouts(7, lengths, fits, attempts, again)
        n = len(lengths)
        assert (found.paid_input * n, found.paid_output * n) == (pytest.approx(read), pytest.approx(wrote))
        assert (found.useful_input + found.useful_output) * n == pytest.approx(useful)
        assert found.answered * n == pytest.approx(whole)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 60), st.integers(1, 5))
def test_redrawn_answers_are_independent_failures(lengths, fits, attempts):
    short = [length for length in lengths if length <= fits]
    found = with_timeouts(7, lengths, fits, attempts, "redrawn")
    if not short:
        assert found.multiplier == math.inf
        return
    mean, q = sum(short) / len(short), 1 - len(short) / len(lengths)
    assert found.multiplier == pytest.approx(1 + q / (1 - q) * (7 + fits) / (7 + mean))


def test_a_greedy_time_out_is_never_cured_by_retries():
    lengths = [10] * 9 + [100]
    one, three = (with_timeouts(0, lengths, 50, attempts) for attempts in (1, 3))
    assert one.answered == three.answered == 0.9
    assert (one.paid_output, three.paid_output) == (14, 24)
    assert with_timeouts(0, lengths, 50, 3, "resumed").answered == 1


def test_the_ledger_says_the_same():
    """Answers of 20 tokens behind prompts of 10, cut with probability 0.4 behind 9 pieces (the tenth is paid and lost)."""
    with Ledger(":memory:") as ledger:
        engine = ScriptedEngine(tuple("abcdefghijklmnopqrst"), gap_s=0.001)
        handler = stack(
            Booked(ledger),
            Retry(6, Backoff(0.001, 0.001), whole=True, seed=1),
            Mishaps((Mishap("cut", share=0.4, after=9),), seed=5),
            engine=engine,
        )

        async def main():
            for number in range(400):
                try:
                    await complete(handler, Request(f"Question {number}"))
                except EngineError:
                    continue

        run_virtual(main())
        rows = list(ledger.rows())
        measured = multiplier_of(ledger)
    failed = sum(row.outcome == "failed" for row in rows)
    q = failed / len(rows)
    assert q == pytest.approx(0.4, abs=0.05)
    assert len(rows) == len(engine.asked)
    exact = with_failures(10, 20, q, 0.5, 6)
    assert measured == pytest.approx(exact.multiplier)  # of the share that did fail, it is exact
    assert exact.multiplier == pytest.approx(with_failures(10, 20, 0.4, 0.5, 6).multiplier, rel=0.15)


def test_money():
    found = with_failures(100, 50, 0.5, 0.5, 50)
    assert found.in_money(RATES) == pytest.approx(1 + (100 + 250) / (100 + 500))
    assert float(found.per_answer(RATES)) == pytest.approx((200 + 750) / 1e6)
    nothing = with_failures(100, 50, 1.0, 0.5, 3)
    assert (nothing.multiplier, nothing.per_answer(RATES)) == (math.inf, Decimal("Infinity"))


@pytest.mark.parametrize("bad", [{"failing": 1.1}, {"written": -0.1}, {"attempts": 0}, {"output": 0}])
def test_failures_out_of_range(bad):
    with pytest.raises(InvalidValue):
        with_failures(**{"prompt": 1, "output": 1, "failing": 0.1, "written": 0.1, "attempts": 2, **bad})


@pytest.mark.parametrize("bad", [{"lengths": []}, {"lengths": [0]}, {"fits": 0}, {"again": "other"}, {"attempts": 0}])
def test_time_outs_out_of_range(bad):
    with pytest.raises(InvalidValue):
        with_timeouts(**{"prompt": 1, "lengths": [1], "fits": 1, "attempts": 2, **bad})
