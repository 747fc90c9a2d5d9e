"""Chapter 12's references against the package, and against one another."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import aclosing
from decimal import Decimal

import pytest

from labkit.cost import self_defined
from labkit.ledger import Booked, Ledger
from labkit.request import Done, EngineError, EngineUnreachable, Message, Request, complete, run_virtual, stack
from labkit.resilience import Ratio, Resume, Weather, resume_cost, retryable, storm, with_failures
from labkit.workbook.chapters.builds.b12 import BreaksOff, GoesOn
from labkit.workbook.chapters.c12 import Budget, Plugged, cost_multiplier, next_step, resume_saves


def test_the_multiplier_is_the_room_s_in_money():
    rng = random.Random(1)
    rates = self_defined("m", "1", "10").rates
    for _ in range(50):
        failing, written, prompt, output = rng.random() * 0.95, rng.random(), rng.randrange(1, 900), rng.randrange(1, 300)
        read, wrote = prompt * 1e-6, output * 1e-5
        found = cost_multiplier(failing, written, read, read, wrote)
        assert found == pytest.approx(with_failures(prompt, output, failing, written, 1).in_money(rates))
    assert cost_multiplier(1.0, 0.5, 1.0, 1.0, 1.0) == math.inf


@pytest.mark.parametrize("percent", [10, 20, 30])
def test_the_budget_ends_the_storm_as_the_room_s_does(percent):
    """It counts by the second where `Ratio` counts in tenths of its window, so the two are near and not equal."""
    weather = Weather(load=0.6, slots=4, lasts_s=60, outage_at=10.0)
    mine = storm(weather, (Plugged(Budget(percent, 10.0)),))
    room_s = storm(Weather(0.6, 3, Ratio(percent / 100, 0.0), slots=4, lasts_s=60, outage_at=10.0))
    assert mine.recovered
    assert room_s.recovered
    assert sum(mine.attempts) == pytest.approx(sum(room_s.attempts), rel=0.05)
    assert sum(mine.attempts) - sum(mine.offered) <= percent / 100 * sum(mine.offered)


def test_without_it_the_same_storm_goes_on():
    assert not storm(Weather(load=0.6, slots=4, lasts_s=60, outage_at=10.0)).recovered


def test_the_budget_forgets_what_is_past():
    budget = Budget(50, 5.0)
    for second in range(1_000):
        budget.request(float(second))
        budget.may_retry(float(second))
    assert len(budget.requests) <= 5
    assert len(budget.retries) <= 5


def test_what_the_budget_refused_is_counted():
    plugged = Plugged(Budget(0, 10.0))
    run = storm(Weather(load=0.5, slots=2, lasts_s=40, outage_at=10.0, outage_s=5.0), (plugged,))
    assert run.attempts == run.offered
    assert plugged.refused > 0


def test_what_may_pass_is_what_the_room_calls_retryable():
    for status in range(400, 600):
        found = next_step(status, False, 0.0, 1.0, 10.0)
        assert (found == "again") == retryable(EngineError("words", status)), status
    assert next_step(None, False, 0.0, 1.0, 10.0) == "again"
    assert retryable(EngineUnreachable("gone"))


def test_going_on_saves_what_the_room_says():
    rng, price = random.Random(3), self_defined("m", "1.25", "10", "0.125")
    for _ in range(50):
        prompt, received = rng.randrange(1, 3_000), rng.randrange(0, 500)
        cold = resume_cost(prompt, received, price)
        assert resume_saves(prompt, received, 0, 1.25e-6, 1.25e-7, 1e-5) == pytest.approx(float(cold.saved), abs=1e-12)
        warm = resume_cost(prompt, received, price, 1.0)
        saved = resume_saves(prompt, received, prompt + received, 1.25e-6, 1.25e-7, 1e-5)
        assert saved == pytest.approx(float(warm.saved), abs=1e-12)


def _read(handler, request):
    async def read():
        pieces, ends = [], []
        try:
            async with aclosing(handler(request)) as events:
                async for event in events:
                    (ends if isinstance(event, Done) else pieces).append(event)
        except EngineError as error:
            return "".join(one.text for one in pieces), "", type(error), len(pieces)
        return "".join(one.text for one in pieces), ends[0].finish_reason, ends[0].usage, len(pieces)

    return asyncio.run(read())


def test_the_build_and_the_room_s_resume_give_the_same_answers():
    rng, text = random.Random(5), " ".join("abcdefghijkl")
    resumed = 0
    for _ in range(200):
        ends = [rng.randrange(1, 6) for _ in range(rng.randrange(4))]
        most, times = rng.choice((3, 8, 20)), rng.randrange(1, 4)
        request = Request((Message("user", "Say it ."),), max_tokens=most)
        mine, room_s = BreaksOff(text, ends), BreaksOff(text, ends)
        said = _read(GoesOn(mine, times), request)
        theirs = _read(stack(Resume(times), engine=room_s), request)
        assert said[:2] == theirs[:2]
        assert [one.max_tokens for one in mine.asked] == [one.max_tokens for one in room_s.asked]
        assert [one.messages for one in mine.asked] == [one.messages for one in room_s.asked]
        resumed += bool(said[1]) and len(mine.asked) > 1
    assert resumed > 30


def test_the_build_books_what_a_ledger_books():
    engine, price = BreaksOff("a b c d e f", [2, 1]), self_defined("m", "1", "10", "0.1")
    goes_on = GoesOn(stack(engine=engine), 3)

    async def ask(ledger):
        return await complete(stack(Booked(ledger, {"*": price}), engine=goes_on), Request("Say it ."))

    with Ledger(":memory:") as ledger:
        answer = run_virtual(ask(ledger))
        rows = list(ledger.rows())
    assert answer.text == "a b c d e f"
    assert [(one.usage.input_tokens, one.usage.output_tokens) for one in goes_on.booked] == [(3, 2), (5, 1), (6, 3)]
    assert sum(goes_on.usd(price).values()) == pytest.approx(
        float(sum(Decimal(one.usage.input_tokens - one.usage.cached_tokens) for one in goes_on.booked)) / 1e6
        + sum(0.1 * one.usage.cached_tokens + 10 * one.usage.output_tokens for one in goes_on.booked) / 1e6
    )
    assert rows[-1].outcome == "completed"
