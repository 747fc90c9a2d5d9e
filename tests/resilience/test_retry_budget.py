"""The budgets, each against a count that is made in another way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import price_request, self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import EngineError, EngineStalled, InvalidValue, Request, Usage, complete, run_virtual, stack
from labkit.resilience import Backoff, Dollars, Quota, Ratio, Retry, at_most_tokens
from resilience.engines import Scheduled

ASKED = Request("May I return it?")
FAILED = EngineError("status 503", 503)
PRICE = self_defined("p", "1", "2")
AT_ONCE = Backoff(0, 0, "none")


def test_finagles_example_two_in_ten_and_a_reserve_of_ten_a_second_for_ten_seconds():
    async def main():
        plain, with_reserve = Ratio(0.2, 0), Ratio()
        for budget in (plain, with_reserve):
            for _ in range(10):
                budget.of(ASKED, first=True)
        return plain.left(ASKED), with_reserve.left(ASKED)

    assert run_virtual(main()) == (2, 2 + 10 * 10)


STEPS = st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([0, 0.1, 0.2, 0.5, 1.0, 2.0]), st.sampled_from([0, 0.1, 0.5, 1.0]))
def test_the_ratio_allows_what_a_count_of_all_events_allows(steps, share, per_second):
    """Whole tenths of the ten seconds count, as in Finagle: a slice of one second each."""

    async def main():
        budget = Ratio(share, per_second, 10)
        loop = asyncio.get_running_loop()
        events, allowed, expected = [], [], []
        for pause, is_request in steps:
            await asyncio.sleep(pause)
            now = int(loop.time())
            if is_request:
                budget.of(ASKED, first=True)
                events.append((now, share))
            else:
                live = sum(amount for at, amount in events if at > now - 10)
                expected.append(live + per_second * 10 >= 1 - 1e-9)
                allowed.append(budget.of(ASKED, first=False).take(FAILED))
                if expected[-1]:
                    events.append((now, -1))
        return allowed, expected, budget.refused

    allowed, expected, refused = run_virtual(main())
    assert allowed == expected
    assert refused == expected.count(False)


class RetryQuotaChecker:
    """What botocore's class of this name does, told by its documentation: the oracle of the next test."""

    def __init__(self, capacity):
        self.capacity = self.most = capacity

    def acquire(self, timed_out):
        amount = 10 if timed_out else 5
        if amount > self.capacity:
            return None
        self.capacity -= amount
        return amount

    def release(self, amount):
        self.capacity = min(self.most, self.capacity + (1 if amount is None else amount))


@given(st.lists(st.tuples(st.lists(st.booleans(), max_size=4), st.booleans()), max_size=40), st.integers(0, 60))
def test_the_quota_is_botocores(requests, start):
    """A request is a list of failures (time-outs or not), and whether it is answered after those that were tried again."""
    theirs = RetryQuotaChecker(start)
    budget = Quota(start)
    seen, expected = [], []
    for failures, answered in requests:
        allowance, last, refused = budget.of(ASKED, first=True), None, False
        for timed_out in failures:
            amount = theirs.acquire(timed_out)
            expected.append(amount is not None)
            seen.append(allowance.take(EngineStalled("silent") if timed_out else FAILED))
            if amount is None:
                refused = True
                break
            last = amount
        if answered and not refused:
            theirs.release(last)
            allowance.answered()
        expected.append(theirs.capacity)
        seen.append(budget.left(ASKED))
    assert seen == expected


def test_botocores_numbers():
    budget = Quota()
    allowance = budget.of(ASKED, first=True)
    assert [allowance.take(FAILED) for _ in range(101)].count(True) == 500 // 5
    assert budget.refused == 1


def test_each_tenant_and_model_has_its_own_account():
    budget = Quota(5)
    requests = [Request("x", tenant=tenant, model=model) for tenant in "ab" for model in "xy"]
    assert [budget.of(r, first=True).take(FAILED) for r in requests] == [True] * 4
    assert [budget.of(r, first=True).take(FAILED) for r in requests] == [False] * 4
    one = Quota(5, by=())
    assert [one.of(r, first=True).take(FAILED) for r in requests] == [True, False, False, False]


def test_accounts_that_are_as_good_as_new_are_forgotten():
    budget = Quota(5)
    poor = Request("x", tenant="poor")
    budget.of(poor, first=True).take(FAILED)
    for number in range(5000):
        budget.of(Request("x", tenant=f"t{number}"), first=True)
    assert len(budget._accounts) < 200
    assert budget.left(poor) == 0


def test_budgets_with_equal_settings_are_equal_and_count_for_themselves():
    first, second = Quota(5), Quota(5)
    assert first == second
    first.of(ASKED, first=True).take(FAILED)
    assert (first.left(ASKED), second.left(ASKED)) == (0, 5)


@pytest.mark.parametrize(
    ("end", "running_usage", "paid"),
    [
        (None, True, "0.000016"),  # 10 read, 3 written
        ((FAILED, 2), True, "0.000014"),  # 10 and 2, by the running count
        ((FAILED, 2), False, "0.000011"),  # the count of the prompt is 7, as told, and 2 came
        (FAILED, True, "0"),  # refused with a status
        (EngineStalled("silent"), True, "0.000263"),  # nobody knows: all that was reserved, 7 and 128
    ],
)
def test_a_retry_is_settled_at_what_it_did_cost(end, running_usage, paid):
    async def main():
        budget = Dollars("1", "0", {"*": PRICE}, count=lambda _: 7)
        engine = Scheduled((FAILED, end), running_usage=running_usage)
        with suppress(EngineError):
            await complete(stack(Retry(2, AT_ONCE, budget), engine=engine), ASKED)
        return 1 - budget.left(ASKED)

    assert run_virtual(main()) == Decimal(paid)


def test_while_a_retry_runs_its_worst_case_is_reserved():
    async def main():
        budget = Dollars("1", "0", {"*": PRICE}, count=lambda _: 7)
        task = asyncio.create_task(complete(stack(Retry(2, AT_ONCE, budget), engine=Scheduled((FAILED,))), ASKED))
        await asyncio.sleep(2.5)
        during = budget.left(ASKED)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return during, budget.left(ASKED)

    during, after = run_virtual(main())
    assert during == 1 - price_request(Usage(7, 128), PRICE).total
    assert after == 1 - price_request(Usage(10, 1), PRICE).total  # one token had come when the caller left


def test_dollars_grow_again_and_refuse_what_does_not_fit():
    async def main():
        budget = Dollars("0.0003", "0.0001", {"*": PRICE}, count=lambda _: 7)
        first, second = (budget.of(ASKED, first=True) for _ in range(2))
        taken = [first.take(FAILED), second.take(FAILED)]
        await asyncio.sleep(10)
        return [*taken, second.take(FAILED), budget.refused]

    assert run_virtual(main()) == [True, False, True, 1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 6))
def test_retries_never_cost_more_than_the_budget_and_what_they_cost_is_the_ledgers(failures, tenths):
    """Many requests at once, each failing after content was held back so many times; money for a few retries only."""
    usd = Decimal(tenths) * Decimal("0.0001")

    async def main():
        ledger, budget = Ledger(":memory:"), Dollars(usd, "0", {"*": PRICE}, count=lambda _: 10, by=())
        for count in failures:
            retry = Retry(4, Backoff(1, 1, "none"), budget, whole=True)
            engine = Scheduled(((FAILED, 2),) * count, gap_s=0.1)
            with suppress(EngineError):
                await complete(stack(Booked(ledger, {"*": PRICE}), retry, engine=engine), ASKED)
        retried = sum((row.cost for row in ledger.rows() if row.attempt > 1), Decimal(0))
        return retried, usd - budget.left(ASKED)

    booked, spent = run_virtual(main())
    assert booked == spent <= usd


def test_a_budget_of_zero_retries_nothing():
    async def main():
        found = []
        for budget in (Ratio(0, 0), Quota(0), Dollars("0", "0", {"*": PRICE})):
            engine = Scheduled((FAILED,))
            with pytest.raises(EngineError):
                await complete(stack(Retry(3, AT_ONCE, budget), engine=engine), ASKED)
            found.append((len(engine.at), budget.refused))
        return found

    assert run_virtual(main()) == [(1, 1)] * 3


def test_the_bound_on_the_tokens_counts_all_that_is_sent():
    request = Request("é" * 10, extra={"tools": [{"name": "search"}]}, response_format={"type": "json_object"})
    assert at_most_tokens(request) >= 20 + len('[{"name": "search"}]') + len('{"type": "json_object"}')


def test_a_count_that_fails_falls_back_on_the_bound():
    async def main():
        budget = Dollars("1", "0", {"*": PRICE}, count=lambda _: 1 / 0)
        engine = Scheduled((FAILED,))
        answer = await complete(stack(Retry(2, AT_ONCE, budget), engine=engine), ASKED)
        return answer.text, budget.worst(ASKED)

    worst = price_request(Usage(at_most_tokens(ASKED), 128), PRICE).total
    assert run_virtual(main()) == ("a b c ", worst)


def test_a_budget_does_not_hinder_answers():
    async def main():
        return (await complete(stack(Retry(budgets=(Quota(0),)), engine=ScriptedEngine()), ASKED)).done.route

    assert run_virtual(main()) == ()


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (Ratio, {"share": -0.1}, "finite number from 0"),
        (Ratio, {"per_second": float("inf")}, "finite number from 0"),
        (Ratio, {"ttl_s": 0}, "count for some time"),
        (Ratio, {"by": "colour"}, "name some of tenant"),
        (Quota, {"cost": 0.5}, "whole number"),
        (Dollars, {"usd": "-1", "per_s": 0, "prices": {"*": PRICE}}, "amount in USD"),
        (Dollars, {"usd": "much", "per_s": 0, "prices": {"*": PRICE}}, "amount in USD"),
        (Dollars, {"usd": 1, "per_s": 0, "prices": {}}, "map models to price lists"),
        (Dollars, {"usd": 1, "per_s": 0, "prices": {"*": 3}}, "Price in USD"),
        (Dollars, {"usd": 1, "per_s": 0, "prices": {"*": PRICE}, "count": 3}, "give a function"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, given, told):
    with pytest.raises(InvalidValue, match=told):
        kind(**given)
