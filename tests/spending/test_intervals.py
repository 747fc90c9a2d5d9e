"""The intervals hold what they say, with whole conversations and not with single calls."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row
from labkit.request import InvalidValue
from labkit.spending import FACTORS, Slice, explain_change

LIST = self_defined("m", input="2", output="8")


def traffic(seed, conversations, mean_output, version):
    """Conversations of 1 to 12 calls whose answers are alike within one of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(conversations):
        length = int(rng.gamma(4, mean_output / 4)) + 1
        for turn in range(int(rng.integers(1, 13))):
            row = Row(
                provider="lab", request_model="m", input_tokens=500, output_tokens=length, prompt_version=version,
                workflow=f"{version}-{number}", attempt_id=f"{version}-{number}-{turn}",
            )  # fmt: skip
            rows.append(replace(row, cost=price_request(row.usage, LIST).total))
    return rows


def versions(*rows):
    ledger = Ledger(":memory:")
    ledger.extend([row for part in rows for row in part])
    return [Slice(ledger, only={"prompt_version": version}, prices={"*": LIST}) for version in ("v1", "v2")]


def explained(seed, conversations=60, after=140):
    before, now = versions(traffic(seed, conversations, 100, "v1"), traffic(seed + 10_000, conversations, after, "v2"))
    return explain_change(before, now, ())


def test_nineteen_of_twenty_hold_the_truth_with_conversations_and_far_fewer_with_single_calls():
    """The truth: 40 tokens of 8 USD a million more for each call. 40 trials of 19 in 20 give 34 or more in 99 of 100."""
    truth = Decimal("0.00032")
    held = {"workflow": 0, "request": 0}
    for seed in range(40):
        found = explained(seed)
        for cluster in held:
            low, high = found.intervals(cluster, draws=100, places=4).per_request
            held[cluster] += low <= truth <= high
    assert held["workflow"] >= 34
    assert held["request"] <= 28


def test_each_part_lies_in_its_range_and_what_never_changes_has_none():
    found = explained(1)
    said = found.intervals(draws=200, places=6)
    parts = found.parts(6)
    assert set(said.parts) == set(FACTORS)
    assert {name: low <= parts[name] <= high for name, (low, high) in said.parts.items()} == dict.fromkeys(FACTORS, True)
    assert said.difference[0] < found.after - found.before < said.difference[1]
    assert {name for name, (low, high) in said.parts.items() if low == high} == set(FACTORS) - {
        "volume", "tokens out"
    }  # fmt: skip
    assert said.parts["price"] == (0, 0)
    assert said.clusters == (60, 60)


def test_a_seed_repeats_it_and_another_does_not():
    found = explained(2)
    assert found.intervals(draws=20, seed=5, places=6) == found.intervals(draws=20, seed=5, places=6)
    assert found.intervals(draws=20, seed=5, places=6) != found.intervals(draws=20, seed=6, places=6)


def test_a_period_with_nothing_in_it_is_no_hindrance_and_one_with_few_conversations_is():
    empty = explain_change(*versions(traffic(3, 40, 100, "v2")), ())
    said = empty.intervals(draws=50, places=6)
    assert said.clusters == (0, 40)
    assert said.parts["volume"] == said.difference
    assert said.difference[0] > 0
    few = explain_change(*versions(traffic(3, 19, 100, "v1"), traffic(3, 40, 100, "v2")), ())
    with pytest.raises(InvalidValue, match=r"19 clusters .*before.*needs 20"):
        few.intervals()


def test_a_conversation_in_both_periods_is_drawn_for_both():
    """The same 30 conversations before and after: what differs between them is in neither difference."""
    before = traffic(4, 30, 100, "v1")
    after = [replace(row, prompt_version="v2", attempt_id=f"again-{row.attempt_id}") for row in before]
    found = explain_change(*versions(before, after), ())
    assert found.intervals(draws=50, places=6).difference == (0, 0)


@pytest.mark.parametrize("wrong", [{"cluster": "team"}, {"draws": 1}, {"level": 1.0}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(InvalidValue):
        explained(1).intervals(**wrong)
