"""Chapter 10's references against the package and against simulation."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.cost import price_request
from labkit.logs.cuts import cheapest_cap as cap_of_a_log
from labkit.output import StagedBill, cost_per_correct, lint_schema
from labkit.request import Message, Request, Usage
from labkit.workbook.chapters.builds.b10 import PRICE, Attempt, Scripted, StagedAnswers
from labkit.workbook.chapters.c10 import _schema, can_run_away, cheapest_cap, cost_ratio, most_who_may_ask


def test_the_cheapest_cap_pays_least_over_all_attempts_one_by_one():
    rng = random.Random(1)
    for _ in range(100):
        whole = [rng.randrange(1, 60) for _ in range(rng.randrange(1, 30))]
        runaways, question, token = rng.randrange(4), rng.choice((0.0, 3.0, 40.0)), 1.0

        def paid(cap, whole=whole, runaways=runaways, question=question):
            cut = sum(question + cap for n in whole if n > cap) + runaways * (question + cap)
            return cut + sum(question + n for n in whole) + runaways * (question + sum(whole) / len(whole))

        found = cheapest_cap(whole, runaways, question, token)
        assert paid(found) == pytest.approx(min(map(paid, whole)))
        assert found == cap_of_a_log(whole, runaways, question, token)


def test_what_the_room_s_lint_calls_endless_can_run_away_and_a_bounded_schema_cannot():
    rng = random.Random(2)
    found = {True: 0, False: 0}
    for _ in range(300):
        schema = _schema(rng, 3)
        endless = any(issue.rule == "endless" for issue in lint_schema(schema))
        assert can_run_away(schema) or not endless, schema
        found[endless] += 1
    assert min(found.values()) > 20


def test_the_break_even_is_that_of_the_measured_bill():
    rng = random.Random(3)
    for _ in range(50):
        question, brief = rng.randrange(50, 3000), rng.randrange(5, 50)
        cached, detailed, wish = rng.randrange(question + 1), brief + rng.randrange(1, 400), rng.randrange(20)
        usages = (
            Usage(question, brief, cached),
            Usage(question + brief + wish, detailed, cached),
            Usage(question, detailed, cached),
        )
        bill = StagedBill(*(Decimal(price_request(usage, PRICE).total) for usage in usages))
        found = most_who_may_ask(question, cached, brief, detailed, wish, 1e-6, 1e-7, 1e-5)
        assert found == pytest.approx(float(bill.break_even))


def test_the_ratio_s_interval_holds_the_truth_about_as_often_as_it_says():
    rng = random.Random(4)

    def drawn(usd, share):
        return [(usd * rng.expovariate(1), rng.random() < share) for _ in range(200)]

    held = 0
    for _ in range(400):
        _, low, high = cost_ratio(drawn(1.0, 0.6), drawn(1.5, 0.9))
        held += low <= (1.0 / 0.6) / (1.5 / 0.9) <= high
    assert 0.92 < held / 400 < 0.98


def test_the_ratio_is_that_of_the_room_s_costs():
    rng = random.Random(5)
    ways = [[(rng.random(), rng.random() < 0.7) for _ in range(60)] for _ in range(2)]
    each = [cost_per_correct([usd for usd, _ in way], [float(right) for _, right in way]).estimate for way in ways]
    assert cost_ratio(*ways)[0] == pytest.approx(each[0] / each[1])


def test_the_books_hold_what_the_engine_was_paid_whatever_fails():
    rng = random.Random(6)

    async def readers(texts, tries):
        engine = Scripted(texts)
        made = StagedAnswers(engine, tries)
        asked = Request((Message("system", "A desk ."), Message("user", "Open ?")), max_tokens=6)
        for n in range(8):
            key = str(n % 3)
            await asyncio.gather(made.short(key, asked), made.short(key, asked))
            if n % 2:
                await made.more(key)
        return engine, made

    for _ in range(20):
        texts = [rng.choice(("a b c", "!a b", "?a", "a b c d e f g h i")) for _ in range(40)]
        engine, made = asyncio.run(readers(texts, rng.randrange(1, 4)))
        assert len(made.booked) == len(engine.asked)
        total = sum(float(price_request(one.usage, PRICE).total) for one in made.booked)
        assert math.isclose(sum(made.usd(PRICE).values()), total)


def test_a_price_list_with_other_rates_gives_another_bill():
    made = StagedAnswers(Scripted(), 1)
    made.booked.append(Attempt("short", "whole", Usage(1_000_000, 0)))
    double = replace(PRICE, rates=replace(PRICE.rates, fresh_input=2 * PRICE.rates.fresh_input))
    assert made.usd(double)["short"] == 2 * made.usd(PRICE)["short"]
