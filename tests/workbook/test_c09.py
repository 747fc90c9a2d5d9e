"""What chapter 09 measures with: its prompts, its bookkeeping, and its exercises beside the lab's own code."""

import asyncio
import random

import pytest

from labkit.cost import price_named, price_request
from labkit.lab import thread
from labkit.request import Request, Usage
from labkit.shrink import NOTHING, Compact, Holdout, Tidy, Window, knapsack, lab_tokens
from labkit.workbook.chapters.builds.b09 import Compressor, missed
from labkit.workbook.chapters.c09 import (
    best_chunks,
    never_opened,
    played,
    policy_case,
    state_after,
    support_case,
)


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_policy_lacks_nothing_and_each_line_that_it_needs_is_missed(seed):
    task = policy_case("test", seed)
    policy, told = task.messages[0].content, task.messages[1].content
    assert missed(task, policy) == []
    needed = [part for part in Compressor(0.9).sentences(policy) if missed(task, policy.replace(part, ""))]
    window = [part for part in needed if part.startswith("Return window")]
    assert len(window) == 1
    assert window[0].split()[2] in told
    assert any("Members" in part for part in needed) == ("I am a member" in told)
    assert len(needed) == 1 + ("I am a member" in told) + (task.answer != "full refund")


def test_cases_that_hang_on_never_say_it_and_get_everything_back():
    tasks = never_opened("test", 10)
    assert len(tasks) == 10
    for task in tasks:
        assert "never opened it" in task.messages[1].content
        assert task.answer == "full refund"


@pytest.mark.parametrize("turn", [1, 4, 8])
def test_a_conversation_up_to_a_turn_asks_for_the_state_of_that_turn(turn):
    told = thread("test", 3, turns=8, chatter=0.3)
    task = state_after(told, turn)
    assert task.answer == told.states[turn - 1]
    assert len(task.messages) == 2 + 2 * turn
    assert task.messages[-1] == told.example.messages[-1]
    assert state_after(told, 8).messages == told.example.messages


def test_the_support_case_gives_each_kind_of_lossless_cut_something_to_do():
    case = Request(support_case(0))
    tidy = asyncio.run(Tidy().shrink(case))
    compact = asyncio.run(Compact().shrink(Request(tidy.after)))
    assert {cut.by for step in (*tidy.steps, *compact.steps) for cut in step.cuts} == {
        "duplicates",
        "white-space",
        "compact",
    }
    assert tidy.then(compact).lossless


def test_played_conversations_are_billed_alike_in_the_ledger_and_beside_it():
    price = price_named("openai/gpt-5")
    holdout = Holdout(Window(3, protect=NOTHING), share=0.3, name="a test")
    found = asyncio.run(played(holdout, 12, 0, price))
    assert set(found.costs["whole"]) == set(found.costs["shrunk"])
    for row in found.rows:
        way = "whole" if holdout.arm(row) == "untouched" else "shrunk"
        assert any(float(row.cost) == pytest.approx(cost) for cost in found.costs[way][row.workflow])
    first = thread("test", 0, turns=len(found.costs["whole"]["conversation 0"]), chatter=0.3)
    tokens = sum(lab_tokens(message.content) for message in state_after(first, 1).messages)
    one = float(price_request(Usage(tokens, 20), price).total)
    assert found.costs["whole"]["conversation 0"][0] == pytest.approx(one)
    totals = {way: sum(map(sum, own.values())) for way, own in found.costs.items()}
    assert found.truth == pytest.approx(1 - totals["shrunk"] / totals["whole"])


@pytest.mark.parametrize("seed", range(30))
def test_chunks_are_chosen_as_the_labs_knapsack_chooses_them(seed):
    rng = random.Random(seed)
    n = rng.randrange(1, 20)
    values, sizes = [rng.randrange(1, 50) for _ in range(n)], [rng.randrange(1, 60) for _ in range(n)]
    budget = rng.randrange(1, sum(sizes) + 5)
    ours, labs = (
        sum(values[i] for i in some) for some in (best_chunks(values, sizes, budget), knapsack(values, sizes, budget))
    )
    assert ours == labs
