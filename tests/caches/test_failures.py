"""Whatever a cache lever calls may fail, at any of its calls: the answer is delivered, booked once, and told what failed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from labkit.caches import (
    CacheControl,
    CachePolicy,
    ResponseCache,
    SemanticCache,
    SingleFlight,
    StaticThreshold,
    Store,
    repeats,
    semantic,
    singleflight,
    streams,
)
from labkit.ledger import Booked, Ledger
from labkit.request import Request, clock, complete, stack
from tests.caches.engine import numbered
from tests.caches.words import Words

MODULES = (repeats, semantic, singleflight, streams)
STORE = ("get", "put_together", "put", "follow", "use", "miss", "refuse")


class Broken(Exception):
    """What is raised; no error of the lab's."""


class Failing:
    """Counts the calls that it stands in for, and fails from the `first` to the `last` of them."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.calls = 0

    def __call__(self, real):
        def called(*args, **named):
            self.calls += 1
            if self.first <= self.calls <= self.last:
                raise Broken(f"call {self.calls}")
            return real(*args, **named)

        return called


def asked(what: str, failing: Failing, monkeypatch: pytest.MonkeyPatch):
    """Six requests past three cache levers, two of them at once, of which `what` fails where `failing` says."""
    store, words, acceptance = Store(), Words(), StaticThreshold(0.99)
    agree = contrast = control = None
    if what == "store":
        for name in STORE:
            monkeypatch.setattr(store, name, failing(getattr(store, name)))
    elif what == "embedder":
        words.encode = failing(words.encode)
    elif what == "acceptance":
        acceptance = SimpleNamespace(decide=failing(acceptance.decide))
    elif what == "clock":
        broken = SimpleNamespace(now=failing(clock.now), unix_now=failing(clock.unix_now), off_loop=clock.off_loop)
        for module in MODULES:
            monkeypatch.setattr(module, "clock", broken, raising=False)
    agree = (failing if what == "agree" else lambda f: f)(lambda cached, fresh: cached == fresh)
    contrast = (failing if what == "contrast" else lambda f: f)(lambda cached, new: ())
    control = (failing if what == "control" else lambda f: f)(lambda request: CacheControl())
    policy = CachePolicy(control)
    engine = numbered(gap_s=0.1)
    cache = SemanticCache(store, words, acceptance, policy=policy, agree=agree, contrast=contrast, verify=0.5, seed=1)
    with Ledger(":memory:") as ledger:
        handler = stack(Booked(ledger), SingleFlight(), ResponseCache(store, policy), cache, engine=engine)

        async def main():
            texts = ["boots to return", "tent for two", "boots to return", "return boots to", "to return boots"]
            burst = await asyncio.gather(*(complete(handler, Request(texts[0])) for _ in range(2)))
            return [*burst, *[await complete(handler, Request(text)) for text in texts[1:]]]

        return clock.run_virtual(main(), epoch=1e6), ledger.rows(), engine, ledger


@pytest.mark.parametrize("what", ["store", "embedder", "acceptance", "contrast", "agree", "control", "clock"])
def test_no_call_that_fails_costs_an_answer_or_its_row(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        never = Failing(0, 0)
        asked(what, never, patch)
    assert never.calls, "something is called, or nothing would be tried"
    for first, last in [(n, n) for n in range(1, never.calls + 1)] + [(1, 10**6), (2, 10**6)]:
        with monkeypatch.context() as patch:
            failing = Failing(first, last)
            answers, rows, engine, _ = asked(what, failing, patch)
        assert all(answer.text[0] == "a" for answer in answers), (first, last)
        assert len(rows) == len(answers) == 6
        assert all(row.outcome == "completed" for row in rows)
        assert sum(row.output_tokens for row in rows) == engine.used.output_tokens
        told = [fault for answer in answers for fault in answer.done.faults]
        assert told, f"call {first} of {never.calls} failed and nobody was told"
        assert all(isinstance(fault.error, Broken) for fault in told)
