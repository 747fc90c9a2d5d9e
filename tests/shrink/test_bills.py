"""The dry run's two bills: against the provider's bookkeeping, and against what a stack then really sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.caches import provider
from labkit.cost import price_named, price_request
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import InvalidValue, Message, Request, complete, run_virtual, stack
from labkit.routing import Split
from labkit.shrink import FREE, BehindPrefix, Cut, Once, Own, Shrinker, Shrunk, blocks, dry_run
from labkit.tokens import tokenizer

LAB = tokenizer("lab")
SONNET = price_named("anthropic/claude-sonnet-4-5")
POLICY = "Sealed tents may be returned within 30 days. Opened ones may not. " * 60


@dataclass(frozen=True)
class Head(Shrinker):
    """Keeps `kept` characters of each message; of the first, where in it depends on the last."""

    kept: int = 400

    async def shrink(self, request: Request) -> Shrunk:
        cuts = []
        for number, message in enumerate(request.messages):
            over = len(message.content) - self.kept
            if over > 0:
                at = min(self.kept, len(request.messages[-1].content)) if len(request.messages) > 1 and number == 0 else 0
                cuts.append(Cut(number, at, at + over, by="head"))
        return Shrunk.of(request.messages, cuts)


def ask(question: str) -> Request:
    return Request((Message("system", POLICY), Message("user", question)))


LAST, NEXT = ask("May I return a tent?"), ask("And an opened one, of last week?")


def run(*shrinkers: Shrinker, rules=None, hits: float = 1.0, own: Own = FREE, request: Request = NEXT):
    return asyncio.run(dry_run(request, shrinkers, SONNET, output_tokens=9, earlier=LAST, rules=rules, hits=hits, own=own))


@settings(max_examples=40)
@given(st.sampled_from((*provider.RULES.values(), blocks(32))), st.sampled_from((0.0, 1.0)), st.integers(200, 3000))
def test_both_bills_are_what_the_provider_books(rules, hits, kept):
    """Two calls, the second within the lifetime or long after it."""
    rules = replace(rules, minimum=min(rules.minimum, 512), lifetime_s=10.0, longest_s=None)
    found = run(Once(Head(kept)), rules=rules, hits=hits)
    for bill, messages in ((found.before, found.shrunk.before), (found.after, found.shrunk.after)):
        whole = LAB.count_chat(messages)
        first = LAB.count_chat(messages[:1]) - 1  # without the mark that opens the answer
        common = first if rules.at_ends else first + 1  # the mark that opens the question is the same
        calls = [provider.Call(at, whole, common, output_tokens=9) for at in (0.0, 1.0 if hits else 100.0)]
        assert bill.tokens == whole
        assert bill.cost.total == price_request(provider.serve(calls, rules)[1], rules.price(SONNET)).total


def test_a_prefix_that_each_question_changes_is_not_found():
    rules = blocks(32)
    each, behind, once = run(Head(), rules=rules), run(BehindPrefix(Head(5)), rules=rules), run(Once(Head()), rules=rules)
    assert each.after.cached < once.after.cached < behind.after.cached == each.before.cached
    assert each.after.tokens == pytest.approx(once.after.tokens, abs=3)
    assert "message 0 (system) [head]" in each.explain()


def test_fewer_tokens_that_cost_more_are_called_that():
    found = run(Head(3000), rules=provider.RULES["openai, in memory"], own=Own(Decimal("0.001")))
    assert found.after.tokens < found.before.tokens
    assert found.saved == found.before.cost.total - found.after.cost.total - Decimal("0.001") < 0
    assert "more, with fewer tokens" in found.explain()
    assert "own cost: 0.001" in found.explain()


def test_a_stack_then_sends_what_its_dry_run_said():
    engine = ScriptedEngine("yes")
    handler = stack(BehindPrefix(Head(7)), Booked(Ledger(":memory:")), Once(Head(300)), engine=engine)
    said = asyncio.run(dry_run(NEXT, handler, SONNET, output_tokens=9))
    assert engine.asked == []
    assert said.before.cached == said.after.cached == 0
    run_virtual(complete(handler, NEXT))
    assert engine.asked[0].messages == said.shrunk.after
    assert len(said.shrunk.steps) == 2


def test_what_cannot_be_said_is_refused():
    below = stack(Split("x"), engine={"A": stack(Head(), engine=ScriptedEngine()), "B": ScriptedEngine()})
    with pytest.raises(InvalidValue, match="stack of one model"):
        asyncio.run(dry_run(NEXT, below, SONNET, output_tokens=9))
    above = stack(Head(), Split("x"), engine={"A": ScriptedEngine(), "B": ScriptedEngine()})
    assert asyncio.run(dry_run(NEXT, above, SONNET, output_tokens=9)).saved > 0
    with pytest.raises(InvalidValue, match="hits is 3"):
        run(Head(), hits=3)
