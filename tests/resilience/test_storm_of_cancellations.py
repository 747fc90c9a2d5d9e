"""A thousand callers leave at once: nothing stays open, no budget stays charged, and the breaker blames nobody."""

from __future__ import annotations

import asyncio

import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.request import EngineError, Request, complete, run_virtual, stack
from labkit.resilience import Backoff, Dollars, Quota, Ratio, Retry
from labkit.routing import Breaker, Fallback

CALLERS = 1000
PRICE = self_defined("p", "1", "2")
ASKED = Request("Is it?")


async def _leave(handler, at):
    """CALLERS ask together and leave together after `at` seconds."""
    tasks = [asyncio.create_task(complete(handler, ASKED)) for _ in range(CALLERS)]
    await asyncio.sleep(at)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)


def test_callers_that_leave_are_no_failures_of_the_engine():
    async def main():
        breaker, engine = Breaker(3, 10.0), ScriptedEngine(delay_s=5.0)
        handler = stack(Retry(3), Fallback(("engine",), breaker), engine={"engine": engine})
        await _leave(handler, 2.0)
        return breaker.state("engine"), engine.closed, (await complete(handler, ASKED)).text

    assert run_virtual(main()) == ("closed", CALLERS, "a b c ")


def test_a_probe_whose_caller_leaves_makes_room_for_the_next():
    async def main():
        breaker, engine = Breaker(1, 10.0), ScriptedEngine(fail_at=0)
        handler = stack(Fallback(("engine",), breaker), engine={"engine": engine})
        with pytest.raises(EngineError):
            await complete(handler, ASKED)
        await asyncio.sleep(11)
        engine.fail_at = None
        probe = asyncio.create_task(complete(handler, ASKED))
        await asyncio.sleep(0.5)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        return breaker.state("engine"), (await complete(handler, ASKED)).text, breaker.state("engine")

    assert run_virtual(main()) == ("half-open", "a b c ", "closed")


def test_those_who_wait_for_their_retry_give_back_what_it_took():
    async def main():
        budgets = (Ratio(0.0, 200.0), Quota(10_000), Dollars("100", "0", {"*": PRICE}))
        before = [budget.left(ASKED) for budget in budgets]
        handler = stack(Retry(2, Backoff(5.0, 5.0, "none"), budgets), engine=ScriptedEngine(fail_at=0))
        await _leave(handler, 3.0)  # the attempts fail at 1 s, and the retries would come at 6 s
        return before, [budget.left(ASKED) for budget in budgets]

    before, after = run_virtual(main())
    assert before == after == [2000, 10_000, 100]
