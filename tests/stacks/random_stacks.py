"""Random stacks under random traffic, and what must hold of their books whatever was stacked on what.

    PYTHONPATH=tests python -m stacks.random_stacks 100000        # many, on all cores; CI runs some

Every stack has a ledger somewhere: on the trunk, at any height, or around each model, or several times over. Its engines are
scripted and count what they tell; some fail, stop short or are slow. Callers cancel, close and run out of time anywhere.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from decimal import Decimal

from caches.words import Words

from labkit.batching import CoalescingWindow, Gate, OffPeak, Pool, Pooled
from labkit.caches import CachePolicy, ResponseCache, SemanticCache, SingleFlight, StaticThreshold, Store
from labkit.cost import price_request, self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Completion,
    Done,
    Handler,
    LabError,
    Lever,
    Request,
    Usage,
    clock,
    complete,
    hops,
    placed,
    stack,
    within,
)
from labkit.resilience import Backoff, Dollars, Idempotent, Partials, Ratio, Resume, Retry
from labkit.routing import (
    Breaker,
    Cascade,
    Copies,
    Fallback,
    Hedge,
    Route,
    RoutingContext,
    RoutingPolicy,
    Score,
    SelfConsistency,
    Shadow,
    Split,
)
from labkit.streaming import EnoughWords, Paced, StopWhen

PRICE = self_defined("any", "3", "5", cached="1")
QUESTIONS = (
    "where is my order", "Where is my order", "where is my ORDER", "where is my parcel", "can I return it",
    "can I not return it", "how late is it",
)  # fmt: skip


class Tired(ScriptedEngine):
    """Fails at every other request, so that a retry can be of use."""

    def __call__(self, request: Request):
        self.fail_at = None if len(self.asked) % 2 else 0
        return super().__call__(request)


@dataclass
class World:
    """One stack, what it was made of, and its random numbers."""

    rng: random.Random
    ledger: Ledger = field(default_factory=lambda: Ledger(":memory:"))
    stores: list[Store] = field(default_factory=list)
    engines: list[ScriptedEngine] = field(default_factory=list)
    copies: Copies = field(default_factory=Copies)
    budgets: tuple[Ratio, Dollars] = field(default_factory=lambda: (Ratio(0.5, 0.2), Dollars("0.01", "0", {"*": PRICE})))

    def engine(self) -> ScriptedEngine:
        rng = self.rng
        made = rng.choice((ScriptedEngine, ScriptedEngine, Tired))(
            pieces=_answer,
            gap_s=rng.choice((0.0, 0.0, 0.1, 1.0)),
            delay_s=rng.choice((*[0.0] * 6, 0.5, 30.0)),
            fail_at=rng.choice((*[None] * 10, 0, 2)),
            error=rng.choice((None, KeyError("x"))) or ScriptedEngine().error,
            without_done=rng.random() < 0.05,
            running_usage=rng.random() < 0.7,
            cached_tokens=rng.choice((0, 4)),
            probability=rng.choice((0.4, 0.9, 0.999)),
            finish_reason=rng.choice(("stop", "stop", "length", "content_filter")),
            model=f"engine-{len(self.engines)}",
        )
        self.engines.append(made)
        return made

    def store(self) -> Store:
        if self.stores and self.rng.random() < 0.5:
            return self.rng.choice(self.stores)
        self.stores.append(Store())
        return self.stores[-1]

    def books(self) -> Booked:
        return Booked(self.ledger, {"*": PRICE}, self.rng.choice(("lab", "")))

    def lever(self) -> Lever:
        rng = self.rng
        return rng.choice(
            (
                lambda: ResponseCache(self.store()),
                lambda: ResponseCache(self.store(), CachePolicy(per_user=True, cache_sampled=True)),
                lambda: SemanticCache(self.store(), Words(), StaticThreshold(0.5), verify=rng.choice((0.0, 0.5)), seed=1),
                SingleFlight,
                lambda: Paced(rng.choice((1, 3)), rng.choice(("wait", "merge"))),
                lambda: StopWhen(EnoughWords(rng.choice((1, 2, 50)))),
                lambda: CoalescingWindow(rng.choice((0.0, 0.2))),
                lambda: Pooled(Gate(2, Pool("a", at_most=1), Pool("b")), _pool),
                lambda: OffPeak(1, 1, work_s=_work, min_slack_s=5.0),
                Idempotent,
                lambda: Retry(rng.choice((2, 3)), Backoff(0.1, 1.0), rng.choice(((), self.budgets)), seed=1),
                Partials,
                Resume,
            )
        )()

    def trunk(self, depth: int) -> list[Lever]:
        return [self.lever() for _ in range(self.rng.randrange(max(1, depth)))]

    def stack(self, depth: int = 4, booked: bool = False) -> Handler:
        """A stack all of whose engines are covered by the ledger, from here or (`booked`) from further out."""
        rng = self.rng
        levers = self.trunk(depth)
        here = not booked and rng.random() < 0.6
        if here or rng.random() < 0.2:
            levers.insert(rng.randrange(len(levers) + 1), self.books())
            booked = True
        if depth <= 1 or rng.random() < 0.35:
            if not booked:
                levers.insert(rng.randrange(len(levers) + 1), self.books())
            engine: Handler = self.engine()
            return stack(*levers, engine=_forwarding(Paced(4)(engine)) if rng.random() < 0.2 else engine)
        chooser, names = self.chooser()
        return stack(*levers, chooser, engine={name: self.stack(depth - 2, booked) for name in names})

    def chooser(self):
        rng = self.rng
        names = ("a", "b") if rng.random() < 0.7 else ("a", "b", "response-cache")
        policy = RoutingPolicy(
            "v", names, (0.6,) * (len(names) - 1), {"a": ("b",)} if rng.random() < 0.5 else {},
            sticky=rng.choice(("", "user")),
        )  # fmt: skip
        context = RoutingContext(breaker=Breaker(2, 20.0), first_token_s=rng.choice((0.3, 60.0)))
        return rng.choice(
            (
                lambda: (Route(policy, _signal, context), names),
                lambda: (Cascade(policy, _judge, context=context), names),
                lambda: (Cascade(policy, SelfConsistency(self.engine(), n=2), context=context), names),
                lambda: (Fallback(names, Breaker(2, 20.0), first_token_s=rng.choice((0.3, 60.0))), names),
                lambda: (Hedge(rng.choice((0.0, 0.3))), names),
                lambda: (Split("response-cache", 0.5), ("A", "B")),
                lambda: (Shadow(0.5, seed=1, copies=self.copies), ("main", "copy")),
            )
        )()


def _answer(request: Request) -> tuple[str, ...]:
    return tuple(f"{word} " for word in request.messages[-1].content.split())


def _pool(request: Request) -> str:
    return "a" if request.user == "u1" else "b"


def _work(request: Request) -> float:
    return 2.0


def _signal(request: Request) -> Score:
    return Score(0.9 if len(request.messages[-1].content) % 2 else 0.1, "length")


def _judge(request: Request, answer: Completion) -> Score:
    return Score(0.9 if len(answer.text) % 3 else 0.1, "length")


def _forwarding(inner: Handler) -> Handler:
    """A handler of a user's own make around an engine."""

    async def handle(request: Request):
        async with aclosing(inner(request)) as events:
            async for event in events:
                yield event

    return handle


async def _caller(world: World, handler: Handler, rng: random.Random, delivered: list[Done]) -> None:
    await asyncio.sleep(rng.choice((0.0, 0.0, 0.1, 2.0, 40.0)))
    request = Request(
        rng.choice(QUESTIONS),
        idempotency_key=rng.choice(("", "", "", "other")),
        user=rng.choice(("u1", "u2")),
        tenant=rng.choice(("", "", "", "t")),
        temperature=rng.choice((*[0.0] * 5, 0.7)),
        seed=rng.choice((None, 3)) if rng.random() < 0.2 else None,
        max_tokens=rng.choice((*[50] * 6, 2)),
        attempt=rng.choice((1, 2)),
    )
    if rng.random() < 0.15:
        request = Request(QUESTIONS[0], idempotency_key="same", user=request.user)
    if rng.random() < 0.2:
        request = within(request, rng.choice((0.05, 0.5, 3.0, 100.0)))
    ends = rng.choice(("whole", "whole", "whole", "close", "cancel"))
    with suppress(LabError, KeyError, asyncio.CancelledError):
        if ends == "whole":
            delivered.append((await complete(handler, request)).done)
        elif ends == "close":
            async with aclosing(handler(request)) as events:
                for _ in range(rng.randrange(4)):
                    await anext(events, None)
        else:
            task = asyncio.create_task(complete(handler, request))
            await asyncio.sleep(rng.choice((0.0, 0.05, 0.3, 2.1)))
            task.cancel()
            delivered.append((await task).done)


def check(seed: int) -> Counter[str]:
    """Make the stack of `seed`, use it, and hold its books against what its engines and caches counted.

    Returns what there was to see in it, for whoever runs many to know that they were not all dull.
    """
    world = World(random.Random(seed))
    handler = world.stack()
    delivered: list[Done] = []

    async def main() -> None:
        callers = [
            _caller(world, handler, random.Random(seed * 100 + i), delivered) for i in range(world.rng.randrange(2, 10))
        ]
        await asyncio.gather(*callers)
        await asyncio.sleep(1000)

    clock.run_virtual(main())
    told = f"\nseed {seed}\n{handler}"
    rows = world.ledger.rows()
    served = [row for row in rows if set(hops.kinds(row.route)[:1]) & set(hops.REPEATED) or _cut_while_served(row)]
    computed = [row for row in rows if row not in served]
    asked = sum(len(engine.asked) for engine in world.engines)
    assert len(computed) == asked, f"{len(computed)} attempts booked, {asked} made{told}"
    assert all(engine.closed == len(engine.asked) for engine in world.engines), f"a stream was left open{told}"
    used = sum((engine.used for engine in world.engines), Usage())
    booked = sum((row.usage or Usage() for row in rows), Usage())
    assert booked == used, f"the books have {booked}, the engines counted {used}{told}"
    for row in rows:
        expected = None
        if row in served:
            expected = Decimal(0)
        elif row.usage_source in ("reported", "running"):
            expected = price_request(row.usage, PRICE).total
        assert row.cost == expected, f"{row} should cost {expected}{told}"
    hits = sum(store.stats().hits for store in world.stores)
    by_cache = [row for row in served if set(hops.kinds(row.route)[:1]) & {hops.RESPONSE_CACHE, hops.SEMANTIC_CACHE}]
    cut = [row for row in served if _cut_while_served(row)]
    assert len(by_cache) <= hits <= len(by_cache) + len(cut), f"{hits} hits, {len(by_cache)} booked, {len(cut)} cut{told}"
    faults = [fault for d in delivered for fault in d.faults if fault.where != hops.PARTIAL]  # a part says why it is one
    assert not faults, f"{faults}{told}"
    seen = Counter(type(each.lever).__name__ for each in placed(handler))
    seen.update({"computed": len(computed), "hits": hits, "cut while served": len(cut), "delivered": len(delivered)})
    seen.update(f"outcome {row.outcome}" for row in rows)
    seen.update(kind for done in delivered for kind in hops.kinds(done.route))
    seen.update(kind for row in served for kind in hops.kinds(row.route))
    return seen


def _cut_while_served(row) -> bool:
    return row.outcome != "completed" and row.cost == 0


def main(number: int) -> None:
    """Check `number` stacks on all cores, and say which failed."""
    with ProcessPoolExecutor() as pool:
        failed = [seed for seeds in pool.map(_failures, range(0, number, 500), [500] * -(-number // 500)) for seed in seeds]
    print(f"{number} stacks, {len(failed)} failed: {failed[:20]}")
    sys.exit(bool(failed))


def _failures(first: int, number: int) -> list[int]:
    found = []
    for seed in range(first, first + number):
        try:
            check(seed)
        except BaseException as error:  # noqa: BLE001 - told at the end, by seed
            print(f"{seed}: {error!s:.2000}", flush=True)
            found.append(seed)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
