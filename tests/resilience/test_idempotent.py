"""One key, one paid answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import EngineError, InvalidRequest, InvalidValue, Request, complete, run_virtual, stack
from labkit.resilience import Idempotent, KeyReused, Partials
from resilience.engines import Scheduled

ASKED = Request("Order it.", tenant="shop", idempotency_key="k1", temperature=1.0)
PRICE = self_defined("p", "1", "2")


def answers(requests, engine, lever=None, *, pause_s=10.0, together=False, ledger=None):
    """The answer or the error of each request, one after another or all at once."""

    async def main():
        booked = [] if ledger is None else [Booked(ledger, {"*": PRICE})]
        handler = stack(*booked, lever or Idempotent(), engine=engine)
        if together:
            return await asyncio.gather(*(complete(handler, each) for each in requests), return_exceptions=True)
        found = []
        for each in requests:
            found += await asyncio.gather(complete(handler, each), return_exceptions=True)
            await asyncio.sleep(pause_s)
        return found

    return run_virtual(main())


@pytest.mark.parametrize(("together", "hop"), [(False, "idempotent"), (True, "single-flight")])
def test_the_same_request_again_gets_the_answer_and_pays_nothing(together, hop):
    ledger, engine = Ledger(":memory:"), ScriptedEngine()
    found = answers([ASKED] * 3, engine, together=together, ledger=ledger)
    assert [each.text for each in found] == ["a b c "] * 3
    assert len(engine.asked) == 1
    assert [each.done.route for each in found] == [(), (hop,), (hop,)]
    assert sorted(row.cost for row in ledger.rows()) == [0, 0, Decimal("0.000016")]
    assert [each.done.cost for each in found] == [Decimal("0.000016"), 0, 0]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, messages="Cancel it."),
        replace(ASKED, model="large"),
        replace(ASKED, max_tokens=5),
        replace(ASKED, permissions=frozenset({"admin"})),
    ],
)
def test_the_same_key_for_another_request_is_refused(other, together):
    engine = ScriptedEngine()
    first, second = answers([ASKED, other], engine, together=together)
    assert first.text == "a b c "
    assert isinstance(second, KeyReused)
    assert isinstance(second, InvalidRequest)
    assert second.status == 422
    assert "'k1'" in str(second)
    assert len(engine.asked) == 1


def test_what_does_not_change_the_request_does_not_matter():
    again = replace(ASKED, attempt=2, priority=5, workflow="w", feature="f", user="u")
    engine = ScriptedEngine()
    assert [each.text for each in answers([ASKED, again], engine)] == ["a b c "] * 2
    assert len(engine.asked) == 1


def test_tenants_keys_and_requests_without_a_key_are_apart():
    requests = [ASKED, replace(ASKED, tenant="other"), replace(ASKED, idempotency_key="k2")]
    requests += [replace(ASKED, idempotency_key="")] * 2
    engine = ScriptedEngine()
    assert [each.done.route for each in answers(requests, engine)] == [()] * 5
    assert len(engine.asked) == 5


def test_an_error_is_not_remembered_and_then_the_key_is_free():
    engine = Scheduled((EngineError("status 503", 503),))
    failed, answered, again = answers([ASKED, ASKED, ASKED], engine)
    assert failed.status == 503
    assert (answered.text, again.text) == ("a b c ", "a b c ")
    assert len(engine.at) == 2
    other = replace(ASKED, messages="Cancel it.")
    failed, answered = answers([ASKED, other], Scheduled((EngineError("status 503", 503),)))
    assert answered.text == "a b c "


def test_a_part_is_not_remembered():
    async def main():
        engine = Scheduled(((EngineError("status 503", 503), 2),))
        handler = stack(Idempotent(), Partials(), engine=engine)
        return [(await complete(handler, ASKED)).text for _ in range(3)], len(engine.at)

    assert run_virtual(main()) == (["a b ", "a b c ", "a b c "], 2)


def test_a_caller_that_leaves_alone_ends_the_stream_and_one_of_two_does_not():
    async def main(stays):
        engine = ScriptedEngine()
        handler = stack(Idempotent(), engine=engine)
        tasks = [asyncio.create_task(complete(handler, ASKED)) for _ in range(1 + stays)]
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        again = await complete(handler, ASKED)
        return len(engine.asked), engine.finished, again.text

    assert run_virtual(main(0)) == (2, 1, "a b c ")
    assert run_virtual(main(1)) == (1, 1, "a b c ")


def test_answers_are_forgotten_after_their_time_and_the_oldest_when_there_are_too_many():
    engine = ScriptedEngine()
    answers([ASKED, ASKED, ASKED], engine, Idempotent(ttl_s=15.0), pause_s=12.0)
    assert len(engine.asked) == 2  # the third comes 24 s after the end of the first
    engine = ScriptedEngine()
    second = replace(ASKED, idempotency_key="k2")
    answers([ASKED, second, second, ASKED], engine, Idempotent(entries=1))
    assert len(engine.asked) == 3


@pytest.mark.parametrize("given", [{"ttl_s": 0}, {"ttl_s": float("nan")}, {"entries": 0}, {"entries": 1.5}])
def test_settings_that_cannot_work_are_refused(given):
    with pytest.raises(InvalidValue):
        Idempotent(**given)
