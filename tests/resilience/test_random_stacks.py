"""Random failures through random stacks: one end for each request, in time, and every attempt in the books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.caches import ResponseCache, Store
from labkit.cost import price_request, self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    EngineStalled,
    Event,
    Handler,
    Request,
    StreamIncomplete,
    Usage,
    clock,
    hops,
    run_virtual,
    stack,
    within,
)
from labkit.resilience import Backoff, Dollars, Idempotent, Quota, Ratio, Retry
from labkit.routing import Breaker, Fallback, Hedge

PRICE = self_defined("p", "1", "2")
ENDS = st.sampled_from(
    [
        None,
        (EngineError("status 503", 503), 0),
        (EngineError("slow down", 429, retry_after_s=3.0), 0),
        (EngineError("status 400", 400), 0),
        (EngineError("status 500", 500), 2),
        (EngineStalled("silent"), 0),
        (StreamIncomplete("cut"), 1),
    ]
)
LEVERS = st.lists(st.sampled_from(["retry", "retry", "idempotent", "cache", "booked"]), max_size=4)


@dataclass(eq=False)
class Random:
    """An engine whose n-th attempt ends as the n-th of `ends` says, over and over."""

    ends: list[tuple[Exception, int] | None]
    made: list[ScriptedEngine] = field(default_factory=list)

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        end = self.ends[len(self.made) % len(self.ends)]
        engine = ScriptedEngine(gap_s=0.3) if end is None else ScriptedEngine(gap_s=0.3, fail_at=end[1], error=end[0])
        self.made.append(engine)
        return engine(request)


@dataclass(eq=False)
class World:
    """A stack and what it stands on."""

    handler: Handler
    engines: list[Random]
    ledger: Ledger
    most: int
    """The attempts at engines that one request can lead to."""


def lever_of(kind, budgets, ledger, store):
    return {
        "retry": lambda: Retry(2, Backoff(0.2, 1.0), budgets, seed=1, silence_s=5.0),
        "idempotent": Idempotent,
        "cache": lambda: ResponseCache(store),
        "booked": lambda: Booked(ledger, {"*": PRICE}),
    }[kind]()


def world_of(outer, inner, chooser, schedules, budget) -> World:
    ledger, store = Ledger(":memory:"), Store(":memory:")
    budgets = {
        "none": (),
        "ratio": (Ratio(0.5, 1.0),),
        "quota": (Quota(12),),
        "dollars": (Dollars("0.01", "0.001", {"*": PRICE}),),
    }[budget]
    engines = [Random(ends) for ends in schedules]
    below = {
        name: stack(*(lever_of(kind, budgets, ledger, store) for kind in inner), engine=engine)
        for name, engine in zip("ab", engines, strict=True)
    }
    top = {
        "fallback": [Fallback(("a", "b"), Breaker(3, 2.0))],
        "hedge": [Hedge(0.5)],
        "one": [],
    }[chooser]
    levers = [Booked(ledger, {"*": PRICE}), *(lever_of(kind, budgets, ledger, store) for kind in outer), *top]
    models = 1 if chooser == "one" else 2
    return World(
        stack(*levers, engine=below if top else below["a"]),
        engines,
        ledger,
        2 ** (outer.count("retry") + inner.count("retry")) * models,
    )


async def ended(world: World, request: Request, allowed: float) -> tuple[int, int, str, float]:
    """How many `Done`s and errors the request ended with, what its reader got, and when it ended; "!" for a late event."""
    done = errors = 0
    text = ""
    start = clock.now()
    try:
        async with aclosing(world.handler(within(request, allowed))) as events:
            async for event in events:
                text += "!" if done else ""
                text += event.text if isinstance(event, Chunk) else ""
                done += isinstance(event, Done)
    except (EngineError, DeadlineExceeded):
        errors += 1
    return done, errors, text, clock.now() - start


@settings(max_examples=60, deadline=None)
@given(
    LEVERS,
    LEVERS,
    st.sampled_from(["one", "fallback", "hedge"]),
    st.tuples(st.lists(ENDS, min_size=1, max_size=6), st.lists(ENDS, min_size=1, max_size=6)),
    st.sampled_from(["none", "ratio", "quota", "dollars"]),
    st.lists(st.tuples(st.sampled_from(["k1", "k2", ""]), st.floats(0, 4), st.floats(0.5, 20)), min_size=1, max_size=6),
)
def test_each_request_ends_once_and_in_time_and_every_attempt_is_booked(outer, inner, chooser, schedules, budget, callers):
    async def main():
        world = world_of(outer, inner, chooser, schedules, budget)

        async def call(key, at, allowed):
            await asyncio.sleep(at)
            request = Request(f"question {key}", tenant="t", idempotency_key=key)
            return *await ended(world, request, allowed), allowed

        ends = await asyncio.gather(*(call(*each) for each in callers))
        await asyncio.sleep(100)
        return world, ends

    world, ends = run_virtual(main())
    rows = world.ledger.rows()
    made = [engine for each in world.engines for engine in each.made]
    attempts = sum(len(engine.asked) for engine in made)
    used = sum((engine.used for engine in made), Usage())
    assert all(done + errors == 1 for done, errors, *_ in ends)
    # The engine says "a b c ". A reader who got "a b a " would have seen an attempt that was made after content.
    assert all(text == "a b c " if done else "a b c ".startswith(text) for done, _, text, _, _ in ends), ends
    assert all(took <= allowed + 1e-6 for *_, took, allowed in ends)
    assert attempts <= world.most * len(callers)
    assert all(engine.closed == len(engine.asked) for engine in made)
    computed = [row for row in rows if row.cost != 0 and not set(hops.kinds(row.route)) & set(hops.REPEATED)]
    assert len(computed) == attempts, (len(rows), attempts)
    assert sum((row.usage or Usage() for row in rows), Usage()) == used
    money = sum((row.cost for row in rows if row.cost is not None), Decimal(0))
    assert money == price_request(used, PRICE).total
