"""Chapter 13: its references against the package, its two days against what was planted, its alert against its rate."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import prod

import numpy as np
import pytest

from labkit.alerts import MONTH_S, BurnRule, Spending, burning, spending_days
from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row
from labkit.request import Done, Message, Request, run_virtual
from labkit.spending import FACTORS, Slice, attribute, explain_change
from labkit.workbook.chapters import c13
from labkit.workbook.chapters.builds.b13 import CostAlert
from labkit.workbook.chapters.c13 import Failed, Purse, bill_by, burns, why_changed, within
from labkit.workbook.chapters.day13 import BEGIN, CAUSES, DAY_S, LARGE, NEW, OLD, TRIAL, Provider, prices, two_days


def test_the_bill_is_that_of_the_room_and_what_nobody_priced_is_a_class_of_its_own():
    rng, ledger, rows = random.Random(1), Ledger(":memory:"), []
    for number in range(200):
        feature, cost = rng.choice("abc"), rng.choice((None, Decimal("0.000125"), Decimal("0.2")))
        rows.append({"feature": feature, "cost": cost})
        ledger.append(Row(provider="p", attempt_id=str(number), feature=feature, cost=cost))
    table = attribute(Slice(ledger), ["feature"])
    found = {value: (usd, unpriced) for value, usd, unpriced in bill_by(rows, "feature")}
    assert found == {r.feature: (r.cost, r.unpriced) for r in table.itertuples()}


def test_the_parts_add_up_whatever_the_order_of_the_factors():
    rng = random.Random(2)
    for _ in range(40):
        n = rng.randrange(1, 5)
        before, after = ([Fraction(rng.randrange(12), rng.choice((1, 3))) for _ in range(n)] for _ in range(2))
        parts = why_changed(before, after)
        assert sum(parts) == prod(after) - prod(before)
        order = rng.sample(range(n), n)
        shuffled = why_changed([before[i] for i in order], [after[i] for i in order])
        assert shuffled == [parts[i] for i in order]


def test_the_parts_of_requests_and_tokens_are_those_of_the_room():
    price, ledger = self_defined("m", input="1", output="10"), Ledger(":memory:")
    for day, calls, output in ((0, 4, 100_000), (1, 6, 150_000)):
        for number in range(calls):
            row = Row(
                provider="lab",
                attempt_id=f"{day}-{number}",
                started_unix=86_400.0 * day,
                input_tokens=0,
                output_tokens=output,
            )
            ledger.append(replace(row, cost=price_request(row.usage, price).total))
    slices = (Slice(ledger, DAY_S * day, DAY_S * (day + 1), prices={"*": price}) for day in (0, 1))
    room = explain_change(*slices, ["feature"]).parts(4)
    ours = why_changed([Fraction(4), Fraction(1)], [Fraction(6), Fraction(3, 2)])
    assert [Fraction(room["volume"]), Fraction(room["tokens out"])] == ours


def test_a_budget_burns_when_the_room_s_rule_says_so():
    rng = random.Random(3)
    said = Counter()
    for _ in range(200):
        spent = [(float(rng.randrange(0, 7200)), rng.random()) for _ in range(rng.randrange(1, 60))]
        rule = BurnRule(rng.choice((1.0, 3.0, 14.4)), 3600.0, 300.0)
        budget, at = rng.choice((500.0, 3000.0)), float(rng.randrange(3600, 7200))
        fires = burns(spent, at, budget, rule.factor, rule.long_s, rule.short_s)
        assert fires == bool(burning(Spending(*zip(*spent, strict=True)), at, budget, MONTH_S, (rule,)))
        said[fires] += 1
    assert c13.MONTH_S == MONTH_S
    assert min(said.values()) > 20


def test_hundreds_at_once_never_overdraw_a_purse_and_nothing_is_held_afterwards():
    rng = random.Random(4)
    for _ in range(20):
        purse, paid = Purse(Decimal(5)), []

        async def ask(most, purse=purse, paid=paid):
            assert purse.spent + purse.held <= purse.limit
            await asyncio.sleep(rng.random() / 1000)
            if rng.random() < 0.2:
                raise Failed
            paid.append(most / 2)
            return "yes", most / 2

        async def rush(purse=purse, ask=ask):
            mosts = [Decimal(rng.randrange(1, 40)) / 100 for _ in range(100)]
            tasks = [asyncio.ensure_future(within(purse, most, lambda m=most: ask(m))) for most in mosts]
            await asyncio.sleep(0)
            for task in rng.sample(tasks, 10):
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        got = asyncio.run(rush())
        assert {type(one) for one in got} <= {str, type(None), Failed, asyncio.CancelledError}
        assert sum(paid) <= purse.spent <= purse.limit
        assert purse.held == 0


def test_the_alert_keeps_to_its_rate_on_average_and_catches_what_is_planted():
    false = quiet = caught = planted = 0
    for seed in range(6):
        null = [_pairs(day) for day in spending_days(20, seed, planted=0, requests=300)]
        made = CostAlert(24, 0.5, 0.1)
        made.calibrate(null, 300, random.Random(seed))
        for day in spending_days(40, 100 + seed, planted=0, requests=300):
            quiet += 1
            false += made.fires(_pairs(day)) is not None
        for day in spending_days(20, 200 + seed, planted=1, requests=300, kinds=("share",)):
            planted += 1
            at = made.fires(_pairs(day))
            caught += at is not None and at >= day.began
    assert 0.03 < false / quiet < 0.25  # the days' own drift, which the build leaves out, is in the upper part
    assert caught / planted > 0.3


def _pairs(day):
    return list(zip(day.times.tolist(), day.usd.tolist(), strict=True))


@pytest.fixture(scope="module", params=range(4))
def two(request):
    ledger = Ledger(":memory:")
    return two_days(ledger, request.param, 400), ledger


def test_what_was_planted_stands_out_of_all_parts_that_are_neither_traffic_nor_mix(two):
    """Tokens that no cache has also lower the share of the input that is cached, so they may come second."""
    planted, ledger = two
    slices = [Slice(ledger, BEGIN + DAY_S * day, BEGIN + DAY_S * (day + 1), prices=prices()) for day in (0, 1)]
    why = explain_change(*slices, ["feature", "model"])
    table = why.by_segment(6)
    parts = {(r["feature"], f): r[f] for _, r in table.iterrows() for f in FACTORS if f not in ("volume", "mix")}
    first, second = sorted(parts, key=parts.get, reverse=True)[:2]
    assert first[0] == planted.feature
    assert (planted.feature, planted.cause) in ((first, second) if planted.cause == "tokens in" else (first,))
    assert sum(why.parts(4).values()) == round(why.after, 4) - round(why.before, 4)


def test_the_new_version_is_live_from_its_hour_on_in_its_feature_alone(two):
    planted, ledger = two
    new = [row for row in ledger.rows() if row.prompt_version == NEW]
    assert {row.feature for row in new} == {planted.feature}
    assert planted.at <= min(row.started_unix for row in new)
    late = [row for row in ledger.rows() if row.feature == planted.feature and row.started_unix > planted.at + 60]
    assert {row.prompt_version for row in late} == {NEW}
    assert planted.cause in CAUSES


def test_only_the_model_on_trial_has_no_price_and_it_is_counted(two):
    _, ledger = two
    unpriced = [row for row in ledger.rows() if row.cost is None]
    assert {row.request_model for row in unpriced} == {TRIAL}
    assert all(row.note and TRIAL in row.note for row in unpriced)
    assert len(unpriced) == 12


def test_equal_seeds_give_equal_days():
    sums = []
    for _ in range(2):
        ledger = Ledger(":memory:")
        two_days(ledger, 5, 1000)
        sums.append((len(ledger), sum(row.cost or 0 for row in ledger.rows())))
    assert sums[0] == sums[1]


def _asked(heads, one_in=1, apart=1.0):
    """The cached tokens of requests with these heads before the same 1,200 words, `apart` seconds from one another."""

    async def ask():
        engine, found = Provider(one_in), []
        for head in heads:
            request = Request(
                (Message("system", f"{head}{' '.join(f'w{n}' for n in range(1200))}"),), model=LARGE, max_tokens=5
            )
            found += [event.usage.cached_tokens async for event in engine(request) if isinstance(event, Done)]
            await asyncio.sleep(apart)
        return found

    return run_virtual(ask())


def test_the_provider_caches_a_stable_prefix_by_its_terms_and_none_behind_the_time():
    assert _asked(["", "", ""]) == [0, 1152, 1152]
    assert _asked(["It is 10:00 . ", "It is 10:01 . "]) == [0, 0]
    assert _asked(["", ""], apart=400) == [0, 0]
    assert _asked(["", ""], one_in=2, apart=400) == [0, 1152]  # in a sample of one in two, it lasts twice as long


def test_the_first_day_has_the_portal_s_traffic(two):
    _, ledger = two
    first = [row for row in ledger.rows() if row.started_unix < BEGIN + DAY_S and row.attempt == 1]
    desk = [row for row in first if row.feature != "summaries"]
    assert len(desk) == pytest.approx(1000, rel=0.15)
    assert len(first) - len(desk) == pytest.approx(250, abs=3)
    assert {row.prompt_version for row in desk} == {OLD}
    assert np.mean([row.input_tokens for row in desk]) == pytest.approx(1208, rel=0.02)
