"""The same prompts each way: what live vLLM serves from its cache is what its rules, and the closed forms, say."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass
from decimal import Decimal

import pytest

from labkit.caches import provider
from labkit.cost import price_request, self_defined
from labkit.engines import ScriptedEngine, connect
from labkit.lab import Deck, draw_policy
from labkit.request import InvalidValue, Message, Request, clock
from labkit.shrink import (
    BEHIND,
    EACH,
    NO_CACHE,
    ONCE,
    UNTOUCHED,
    Cut,
    Shrinker,
    Shrunk,
    Stream,
    blocks,
    both_ways,
    break_even,
    five_ways,
)
from labkit.tokens import tokenizer

BLOCK = 32
QUESTIONS = ("tent", "stove", "kayak", "rope", "lamp", "boots")


@dataclass(frozen=True)
class OnTopic(Shrinker):
    """Drops every second sentence, chosen by the last message, so that each question gets another prompt."""

    async def shrink(self, request: Request) -> Shrunk:
        rng = random.Random(request.messages[-1].content)
        cuts = [
            Cut(number, found.start(), found.end(), by="on-topic")
            for number, message in enumerate(request.messages)
            for found in re.finditer(r"[^.]+\. ?", message.content)
            if rng.random() < 0.5
        ]
        return Shrunk.of(request.messages, cuts)


def prompts() -> list[Request]:
    policy = draw_policy(Deck("test", random.Random(5)), 3, 30).text
    return [
        Request((Message("system", policy), Message("user", f"I have a {noun}. It is broken. What now?")), max_tokens=1)
        for noun in QUESTIONS
    ]


def test_a_replayed_answer_needs_no_engine_and_one_request_shows_nothing():
    engine = ScriptedEngine("yes", input_tokens=50)
    trips = clock.run_virtual(both_ways(engine, prompts(), five_ways(OnTopic())))
    assert [trip.way for trip in trips[:5]] == [NO_CACHE, UNTOUCHED, EACH, BEHIND, ONCE]
    assert {trip.predicted for trip in trips} == {None}
    salts = [request.extra["cache_salt"] for request in engine.asked]
    assert len(set(salts)) == 4 + len(set(salts[::5])) == 4 + len(QUESTIONS)
    with pytest.raises(InvalidValue, match="two or more"):
        clock.run_virtual(both_ways(engine, prompts()[:1], five_ways(OnTopic())))


@pytest.mark.live
@pytest.mark.timeout(300)
def test_live_vllm_serves_what_was_predicted_and_the_closed_form_says_the_same():
    trips = asyncio.run(live())
    assert [trip.usage.cached_tokens for trip in trips] == [trip.predicted for trip in trips]
    by_way = {way: [trip.usage for trip in trips if trip.way == way] for way in (NO_CACHE, UNTOUCHED, EACH, BEHIND, ONCE)}
    price = self_defined("lab", "1", "0", cached="0")
    usd = {way: sum(price_request(u, price).total for u in usages) for way, usages in by_way.items()}
    assert sum(u.cached_tokens for u in by_way[NO_CACHE]) == 0
    assert sum(u.input_tokens for u in by_way[EACH]) < sum(u.input_tokens for u in by_way[UNTOUCHED])
    assert usd[EACH] > usd[UNTOUCHED]  # fewer tokens, and more of them paid in full
    assert max(usd[BEHIND], usd[ONCE]) < usd[UNTOUCHED]
    # The closed form for "behind", from the lengths alone.
    whole = by_way[UNTOUCHED][1:]
    common = whole[0].cached_tokens
    tail = sum(u.input_tokens for u in whole) / len(whole) - common
    left = sum(u.input_tokens - common for u in by_way[BEHIND][1:]) / len(whole) / tail
    said = break_even(Stream(common, round(tail), price, blocks(BLOCK)), "behind", left)
    assert {u.cached_tokens for u in whole} == {common} == {provider_says(common)}
    measured = sum(price_request(u, price).total for u in by_way[BEHIND][1:]) / len(whole)
    assert abs(said.after - measured) <= Decimal("1e-6")  # a token: the tails' lengths differ


def provider_says(common: int) -> int:
    rules: provider.CacheRules = blocks(BLOCK)
    return rules.cached(common)


async def live():
    async with await connect("vllm", model="small", block_size=BLOCK, max_model_len=1024) as engine:
        return await both_ways(engine, prompts(), five_ways(OnTopic()), tokenizer("lab"), BLOCK)
