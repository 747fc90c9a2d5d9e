"""The cost of a correct answer: its interval against simulation, its surface against real stacks."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger, Row
from labkit.output import Cap, Tried, cheapest, cost_per_correct, cost_per_correct_of, paid_by_request, surface
from labkit.request import InvalidValue, Request, complete, run_virtual, stack

from .writer import Writer


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(600):
        right = rng.random(120) < 0.6
        costs = 2.0 + right * 1.0 + rng.exponential(1.5, 120)  # right answers are dearer
        found = cost_per_correct(list(costs), list(right.astype(float)))
        held += found.low <= (2.0 + 0.6 + 1.5) / 0.6 <= found.high
    assert 0.95 * 600 - 3 * math.sqrt(600 * 0.95 * 0.05) <= held <= 600 * 0.95 + 3 * math.sqrt(600 * 0.95 * 0.05)


def test_it_agrees_with_drawing_the_requests_again() -> None:
    rng = np.random.default_rng(4)
    right = (rng.random(300) < 0.8).astype(float)
    costs = 1.0 + rng.random(300)
    found = cost_per_correct(list(costs), list(right))
    drawn = rng.integers(300, size=(4000, 300))
    ratios = costs[drawn].sum(1) / right[drawn].sum(1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), rel=0.01)


def test_where_nothing_may_be_right_there_is_no_upper_end() -> None:
    assert cost_per_correct([1.0, 2.0, 3.0], [0, 0, 0]).estimate == math.inf
    few = cost_per_correct([1.0] * 20, [1, *[0] * 19])
    assert (few.estimate, few.high) == (20.0, math.inf)
    assert 0 < few.low < 20
    sure = cost_per_correct([2.0, 2.0, 2.0], [1, 1, 1])
    assert (sure.low, sure.estimate, sure.high) == (2.0, 2.0, 2.0)
    with pytest.raises(InvalidValue, match="at least two"):
        cost_per_correct([1.0], [1])
    with pytest.raises(InvalidValue, match="2 costs and 1 grades"):
        cost_per_correct([1.0, 1.0], [1])


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.integers(1, 12),
    st.sampled_from(["pass", "again", "continue"]),
)
@settings(max_examples=60)
def test_the_surface_is_what_a_capped_stack_pays(lengths: list[int], cap: int, on_cut: str) -> None:
    """Each answer through a real `Cap` and a real ledger, against what its uncapped length alone says."""
    price = self_defined("writer", "1000000", "3000000")  # 1 an input token, 3 an output token
    tried, paid, delivered = [], 0.0, 0
    for length in lengths:
        with Ledger(":memory:") as ledger:
            words = [f"{i} " for i in range(length)]
            handler = stack(Booked(ledger, {"*": price}), Cap(cap, on_cut), engine=Writer(words))  # type: ignore[arg-type]
            answer = run_virtual(complete(handler, Request("Why?", max_tokens=20)))
            paid += float(sum((row.cost or Decimal(0) for row in ledger.rows()), Decimal(0)))
            delivered += answer.text == "".join(words)
        # A prompt is one token, and one that goes on has the message and its tokens besides.
        again = 2.0 + cap if on_cut == "continue" else 1.0
        tried.append(Tried("text", 1.0, 3.0, length, True, again=again))
    row = surface(tried, [cap], on_cut).iloc[0]  # type: ignore[arg-type]
    assert row.cost * len(lengths) == pytest.approx(paid)
    assert row.right * len(lengths) == pytest.approx(delivered)


def test_the_surface_and_its_cheapest_point() -> None:
    rng = random.Random(5)
    tried = [Tried("text", 10, 1, rng.randint(5, 20), True) for _ in range(200)]
    tried += [Tried("json", 10, 1, rng.randint(15, 30), rng.random() < 0.9) for _ in range(200)]
    table = surface(tried, [10, 20, 30])
    text, json = table[table.form == "text"], table[table.form == "json"]
    assert text.per_correct.tolist()[1] == text.per_correct.tolist()[2] == pytest.approx(10 + text.tokens.tolist()[2])
    assert json.per_correct.tolist()[0] == math.inf  # no answer fits, every one is paid
    assert text.cut.tolist()[1:] == [0, 0]
    best = cheapest(table)
    assert (best.form, best.cap) == ("text", 20)
    assert best.low < best.per_correct < best.high
    early = surface([Tried("text", 10, 1, 20, True, needed=5)] * 2, [5])
    assert early.right.tolist() == [1.0]  # the answer is there before the end is
    for wrong in ([], [0], [1.5]):
        with pytest.raises(InvalidValue, match="caps"):
            surface(tried, wrong)
    for bad in ({"tokens": 3, "needed": 4}, {"tokens": -1}, {"tokens": 1, "input": -1.0}):
        with pytest.raises(InvalidValue):
            Tried(**{"form": "x", "input": 1.0, "token": 1.0, "right": True, **bad})


def test_the_ledger_counts_every_attempt_of_a_request() -> None:
    def row(key: str, cost: str | None, **more: object) -> Row:
        settings = {"cost": None if cost is None else Decimal(cost), **more}
        return Row(provider="lab", idempotency_key=key, **settings)  # type: ignore[arg-type]

    rows = [
        row("a", "1"),
        row("a", "2", attempt=2),
        row("b", "4", outcome="failed"),
        row("b~rest", "1"),
        row("b~free~rest", "1"),
    ]
    assert paid_by_request(rows) == {("", "a"): 3.0, ("", "b"): 6.0}
    found = cost_per_correct_of(rows, {("", "a"): True, ("", "b"): False})
    assert (found.estimate, found.high) == (9.0, math.inf)
    with pytest.raises(InvalidValue, match=r"1 requests have no grade"):
        cost_per_correct_of(rows, {("", "a"): True})
    for bad in (row("", "1"), row("a", None), row("a", "1", currency="EUR")):
        with pytest.raises(InvalidValue):
            paid_by_request([*rows, bad])
