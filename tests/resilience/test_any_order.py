"""All levers of the room in any order over failing engines: one end for each request, in time, and all attempts booked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import pytest

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
from labkit.resilience import Backoff, Idempotent, Mishap, Mishaps, Partials, Quota, Ratio, Resume, Retry
from labkit.resilience.retry import _Trial
from labkit.routing import Breaker, Fallback, Hedge

PRICE = self_defined("p", "1", "2")
WORDS = ("one ", "two ", "three ", "four ", "five ")
REFUSALS = ("rate-limit", "error", "unavailable", "no-answer")
KINDS = (*REFUSALS, "lost", "stall", "cut", "no-done", "drip")
"""The mishaps that change no word of an answer."""
ENDS = (
    None,
    None,
    (EngineError("status 503", 503), 0),
    (EngineError("slow down", 429, retry_after_s=2.0), 0),
    (EngineError("status 400", 400), 0),
    (EngineError("status 500", 500), 3),
    (EngineStalled("silent"), 1),
    (StreamIncomplete("cut"), 2),
)
STACKS = 240


def _rest(request: Request) -> tuple[str, ...]:
    """WORDS, or what follows those that the model is told to have written; to stop is a token, too."""
    said = request.messages[-1].content if request.extra.get("continue_final_message") else ""
    assert "".join(WORDS).startswith(said), said
    return WORDS[len(said.split()) :] or ("",)


@dataclass(eq=False)
class Failing:
    """An engine that goes on behind what was said; its n-th attempt ends as the n-th of `ends` says, over and over."""

    ends: list[tuple[Exception, int] | None]
    made: list[ScriptedEngine] = field(default_factory=list, repr=False)

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        end = self.ends[len(self.made) % len(self.ends)]
        engine = ScriptedEngine(_rest, 0.3) if end is None else ScriptedEngine(_rest, 0.3, fail_at=end[1], error=end[0])
        self.made.append(engine)
        return engine(request)


@dataclass(frozen=True)
class Noted(Mishaps):
    """Mishaps that are counted by their kind."""

    seen: Counter[str] = field(default_factory=Counter, compare=False)

    def befalls(self, number: int, at: float) -> Mishap | None:
        mishap = super().befalls(number, at)
        if mishap is not None:
            self.seen[mishap.kind] += 1
        return mishap


@dataclass
class World:
    """One stack, what it is made of, and its dice."""

    dice: Random
    ledger: Ledger = field(default_factory=lambda: Ledger(":memory:"))
    engines: list[Failing] = field(default_factory=list)
    mishaps: Counter[str] = field(default_factory=Counter)

    def engine(self) -> Failing:
        made = Failing([self.dice.choice(ENDS) for _ in range(self.dice.randint(1, 5))])
        self.engines.append(made)
        return made

    def lever(self) -> object:
        dice = self.dice
        budgets = dice.choice(((), (Ratio(0.5, 1.0),), (Quota(20),)))
        return dice.choice(
            (
                lambda: Retry(2, Backoff(0.2, 1.0), budgets, silence_s=5.0, whole=dice.random() < 0.3, seed=1),
                Idempotent,
                Partials,
                lambda: Resume(dice.choice((1, 2))),
                lambda: Noted((self.mishap(), self.mishap()), seed=dice.randrange(99), seen=self.mishaps),
                lambda: Booked(self.ledger, {"*": PRICE}),
            )
        )()

    def mishap(self) -> Mishap:
        dice = self.dice
        return Mishap(dice.choice(KINDS), dice.choice((0.2, 0.6)), dice.randrange(4), dice.choice((0.5, 30.0)))

    def levers(self) -> list[object]:
        return [self.lever() for _ in range(self.dice.randrange(5))]

    def stack(self) -> Handler:
        outer = [Booked(self.ledger, {"*": PRICE}), *self.levers()]
        chooser = self.dice.choice((None, Fallback(("a", "b"), Breaker(3, 2.0)), Hedge(0.5)))
        if chooser is None:
            return stack(*outer, *self.levers(), engine=self.engine())
        return stack(*outer, chooser, engine={name: stack(*self.levers(), engine=self.engine()) for name in "ab"})


@dataclass
class Reader:
    """One caller: what it asks for, when, for how long, and after how many events it leaves (None: it stays)."""

    key: str
    at: float
    allowed: float
    leaves: int | None
    text: str = ""
    done: list[Done] = field(default_factory=list)
    errors: int = 0
    took: float = 0.0
    late: int = 0

    async def read(self, handler: Handler) -> None:
        await asyncio.sleep(self.at)
        start, got = clock.now(), 0
        request = within(Request(f"question {self.key}", tenant="t", idempotency_key=self.key), self.allowed)
        try:
            async with aclosing(handler(request)) as events:
                while got != self.leaves:
                    event = await anext(events)
                    got, self.late = got + 1, self.late + len(self.done)
                    self.text += event.text if isinstance(event, Chunk) else ""
                    self.done += [event] if isinstance(event, Done) else []
        except StopAsyncIteration:
            self.errors += not self.done  # as `complete` has it
        except (EngineError, DeadlineExceeded):
            self.errors += 1
        self.took = clock.now() - start


def reader(dice: Random) -> Reader:
    leaves = dice.randrange(5) if dice.random() < 0.2 else None
    return Reader(dice.choice(("", "k1", "k2")), dice.uniform(0, 12), dice.choice((0.5, 2.0, 20.0, 100.0)), leaves)


def check(seed: int) -> Counter[str]:
    """Use the stack of `seed`, and hold what its readers got and what its ledger has against its engines; what was seen."""
    world = World(Random(seed))
    handler = world.stack()
    readers = [reader(world.dice) for _ in range(world.dice.randrange(1, 8))]

    async def main() -> None:
        await asyncio.gather(*(each.read(handler) for each in readers))
        await asyncio.sleep(200)

    run_virtual(main())
    for each in readers:
        told = f"{each}\n{handler}"
        assert each.leaves is not None or len(each.done) + each.errors == 1, told
        assert len(each.done) + each.errors <= 1, told
        assert each.late == 0, told
        assert each.took <= each.allowed + 1e-6, told
        # A reader who got a word twice would have seen an attempt that was made from its beginning after content.
        whole = each.done and each.done[0].finish_reason != "partial"
        assert each.text == "".join(WORDS) if whole else "".join(WORDS).startswith(each.text), told
    rows, made = world.ledger.rows(), [engine for each in world.engines for engine in each.made]
    attempts, used = sum(len(each.asked) for each in made), sum((each.used for each in made), Usage())
    refused = sum(world.mishaps[kind] for kind in REFUSALS)
    computed = [row for row in rows if row.cost != 0 and not set(hops.kinds(row.route)) & set(hops.REPEATED)]
    assert all(each.closed == len(each.asked) for each in made), str(handler)
    assert len(computed) == attempts + refused, f"{len(computed)} booked, {attempts} made, {refused} refused\n{handler}"
    assert sum((row.usage or Usage() for row in rows), Usage()) == used, str(handler)
    assert sum((row.cost or Decimal(0) for row in rows), Decimal(0)) == price_request(used, PRICE).total, str(handler)
    seen = Counter(kind for each in readers for done in each.done for kind in hops.kinds(done.route))
    seen.update(world.mishaps)
    seen.update({"answers": sum(len(each.done) for each in readers), "errors": sum(each.errors for each in readers)})
    return seen


def seen_in(stacks: int) -> Counter[str]:
    """`check` of so many stacks."""
    seen = Counter[str]()
    for seed in range(stacks):
        try:
            seen += check(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    return seen


def test_each_request_ends_once_and_in_time_and_every_attempt_is_booked():
    seen = seen_in(STACKS)
    wanted = {hops.RETRY, hops.IDEMPOTENT, hops.PARTIAL, hops.RESUME, hops.HEDGE, hops.FALLBACK, *KINDS}
    assert not {kind: seen[kind] for kind in wanted if seen[kind] < 5}
    assert min(seen["answers"], seen["errors"]) > STACKS / 4


def test_a_retry_after_content_would_be_seen(monkeypatch):
    careful = _Trial._wait
    monkeypatch.setattr(_Trial, "_wait", lambda self, failure, begun: careful(self, failure, begun=False))
    with pytest.raises(AssertionError, match="Reader"):
        seen_in(STACKS)
