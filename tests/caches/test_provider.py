"""Provider prompt caching against worked examples, closed forms and a slow reading of the rules."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.caches.provider import RULES, CacheRules, Call, hit_probability, reads_to_pay_for_a_write, serve
from labkit.cost import price_of, price_workflow, self_defined
from labkit.request import InvalidValue, Usage

FIVE, HOUR, OPENAI = RULES["anthropic, 5 minutes"], RULES["anthropic, 1 hour"], RULES["openai, in memory"]
# Anthropic's table of multipliers: 1.25 and 2 times input for writing, a tenth for reading.
SONNET = self_defined("sonnet", input="3", output="15", cached="0.30", cache_write="3.75")


def total(calls: list[Call], rules: CacheRules) -> Decimal:
    return price_workflow(serve(calls, rules), rules.price(SONNET)).total


def test_a_write_and_its_reads_cost_what_the_table_of_multipliers_says() -> None:
    calls = [Call(60.0 * i, 10_000, 10_000) for i in range(5)]
    plain = Decimal(50_000) * 3 / 1_000_000
    assert total(calls, FIVE) == plain * (Decimal("1.25") + 4 * Decimal("0.1")) / 5
    assert total(calls, HOUR) == plain * (2 + 4 * Decimal("0.1")) / 5


def test_a_prefix_is_refreshed_by_use_and_forgotten_without() -> None:
    at = [0, 299, 598, 898, 1500]  # the fourth comes 300 s after the third
    usages = serve([Call(t, 3000, 2000) for t in at], FIVE)
    assert [u.cached_tokens for u in usages] == [0, 2000, 2000, 0, 0]
    assert [u.cache_write_tokens for u in usages] == [2000, 0, 0, 2000, 2000]
    hour = serve([Call(t, 3000, 2000) for t in at], HOUR)
    assert [u.cached_tokens for u in hour] == [0, 2000, 2000, 2000, 2000]


def test_openai_counts_in_steps_of_128_from_1024_and_writes_for_nothing() -> None:
    usages = serve(
        [Call(0, 5000, 1023, "a"), Call(1, 5000, 1023, "a"), Call(2, 5000, 1300, "b"), Call(3, 5000, 1300, "b")], OPENAI
    )
    assert [u.cached_tokens for u in usages] == [0, 0, 0, 1280]
    assert all(u.cache_write_tokens == 0 for u in usages)
    # Kept busy, a prefix still goes an hour after it was written.
    busy = serve([Call(100.0 * i, 2000, 2000) for i in range(38)], OPENAI)
    assert [i for i, u in enumerate(busy) if not u.cached_tokens] == [0, 36]


def test_prefixes_do_not_help_each_other() -> None:
    usages = serve([Call(i, 2000, 2000, prefix) for i, prefix in enumerate("abab")], FIVE)
    assert [u.cached_tokens for u in usages] == [0, 0, 2000, 2000]


def read_and_written(calls: list[Call], rules: CacheRules) -> list[tuple[int, int]]:
    return [(usage.cached_tokens, usage.cache_write_tokens) for usage in serve(calls, rules)]


def test_a_growing_conversation_reads_what_was_written_and_writes_the_rest() -> None:
    # Measured on Anthropic's API by iTerm2's developers: each turn reads the last one's prefix.
    turns = [Call(30.0 * i, tokens, tokens, "conversation", 200) for i, tokens in enumerate((2000, 4200, 6500))]
    assert read_and_written(turns, FIVE) == [(0, 2000), (2000, 2200), (4200, 2300)]
    # OpenAI: whole steps of 128 of what an earlier turn left: 15 · 128 of 2,000, 32 · 128 of 4,200.
    assert read_and_written(turns, OPENAI) == [(0, 0), (1920, 0), (4096, 0)]
    late = [turns[0], turns[1], replace(turns[2], at=400.0)]
    assert read_and_written(late, FIVE)[2] == (0, 6500)
    # Below the minimum nothing is written, so there is nothing to read.
    small = [Call(0, 600, 600, "c"), Call(1, 1100, 1100, "c"), Call(2, 1500, 1500, "c")]
    assert read_and_written(small, FIVE) == [(0, 0), (0, 1100), (1100, 400)]
    assert read_and_written(small, OPENAI) == [(0, 0), (0, 0), (1024, 0)]


def test_a_shorter_prefix_is_read_at_the_ends_that_were_written_or_at_any_step() -> None:
    calls = [Call(0, 4200, 4200), Call(1, 2000, 2000), Call(2, 3000, 3000), Call(3, 4200, 4200)]
    assert read_and_written(calls, FIVE) == [(0, 4200), (0, 2000), (2000, 1000), (4200, 0)]
    assert read_and_written(calls, OPENAI) == [(0, 0), (1920, 0), (2944, 0), (4096, 0)]


def test_the_beginning_that_is_used_outlives_the_end_that_is_not() -> None:
    calls = [Call(0, 4096, 4096), *(Call(200.0 * i, 2048, 2048) for i in (1, 2)), Call(500, 4096, 4096)]
    assert read_and_written(calls, OPENAI) == [(0, 0), (2048, 0), (2048, 0), (2048, 0)]


def slow(calls: list[Call], rules: CacheRules) -> list[int]:
    """Tokens read by each call, from the rules as they are written, token by token."""
    kept: dict[object, tuple[float, float]] = {}  # what is kept: a token of a prefix, or a prefix with its end
    reads = []
    for call in calls:
        whole = 0 if call.prefix_tokens < rules.minimum else call.prefix_tokens // rules.increment * rules.increment

        def alive(key: object, now: float = call.at) -> bool:
            written, used = kept.get(key, (-math.inf, -math.inf))
            return now - used < rules.lifetime_s and now - written < (rules.longest_s or math.inf)

        if rules.at_ends:
            keys = [(call.prefix, end) for end in range(whole + 1)]
            read = max((end for end, key in enumerate(keys) if alive(key)), default=0)
            used = {keys[read], keys[whole]} if whole else set()
        else:
            keys = [(call.prefix, token) for token in range(whole)]
            read = next((token for token, key in enumerate(keys) if not alive(key)), whole)
            used = set(keys)
        for key in used:
            kept[key] = (kept[key][0] if alive(key) and (rules.at_ends or key[1] < read) else call.at, call.at)
        reads.append(read if read >= rules.minimum else 0)
    return reads


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 400), st.integers(0, 1), st.integers(0, 60), st.integers(0, 99)), max_size=14),
    st.sampled_from(list(RULES.values())),
)
def test_every_call_reads_what_earlier_ones_wrote_and_is_still_kept(drawn, rules: CacheRules) -> None:
    rules = replace(rules, minimum=8, increment=min(rules.increment, 4))
    calls, now = [], 0.0
    for gap, prefix, tokens, extra in drawn:
        now += gap
        calls.append(Call(now, tokens + extra, tokens, prefix, 7))
    usages = serve(calls, rules)
    assert [usage.cached_tokens for usage in usages] == slow(calls, rules)
    for i, (call, usage) in enumerate(zip(calls, usages, strict=True)):
        assert usage.cached_tokens <= max((c.prefix_tokens for c in calls[:i] if c.prefix == call.prefix), default=0)
        cacheable = rules.cached(call.prefix_tokens)
        assert usage.cache_write_tokens == (cacheable - usage.cached_tokens if rules.charged else 0)
        assert (usage.input_tokens, usage.output_tokens) == (call.input_tokens, 7)


@pytest.mark.parametrize("rules", [FIVE, HOUR])
def test_so_many_reads_pay_for_a_write_and_one_fewer_does_not(rules: CacheRules) -> None:
    needed = reads_to_pay_for_a_write(SONNET, rules)
    assert needed == {FIVE: Decimal("0.75") / Decimal("2.7"), HOUR: Decimal(3) / Decimal("2.7")}[rules]

    def dearer(reads: int) -> bool:
        calls = [Call(float(i), 2000, 2000) for i in range(reads + 1)]
        return total(calls, rules) > price_workflow([Usage(2000, 0)] * (reads + 1), SONNET).total

    whole = math.ceil(needed)
    assert not dearer(whole)
    assert dearer(whole - 1)


def test_the_price_lists_own_premium_is_the_five_minutes_one() -> None:
    listed = price_of("claude-sonnet-4-5")
    assert listed.rates.cache_write == listed.rates.fresh_input * Decimal("1.25")
    assert listed.rates.cached_input == listed.rates.fresh_input / 10
    assert reads_to_pay_for_a_write(price_of("gpt-5-mini"), OPENAI) == 0
    free = replace(SONNET, rates=replace(SONNET.rates, cached_input=SONNET.rates.fresh_input))
    assert reads_to_pay_for_a_write(free, FIVE) is None


def test_impossible_calls_and_rules_are_named() -> None:
    with pytest.raises(InvalidValue, match="prefix of 11"):
        Call(0, 10, 11)
    with pytest.raises(InvalidValue, match=r"at 1 s comes after one at 2 s"):
        serve([Call(2, 10, 5), Call(1, 10, 5)], FIVE)
    with pytest.raises(InvalidValue, match="lifetime 0 s"):
        CacheRules("mine", 1, 0, "me", "today")


@pytest.mark.parametrize("per_lifetime", [0.1, 0.7, 3.0])
def test_poisson_calls_hit_as_often_as_the_formula_says(per_lifetime: float) -> None:
    rng, now, calls = random.Random(1), 0.0, []
    for _ in range(20_000):
        now += rng.expovariate(per_lifetime / FIVE.lifetime_s)
        calls.append(Call(now, 2000, 2000))
    share = sum(1 for u in serve(calls, FIVE) if u.cached_tokens) / len(calls)
    assert share == pytest.approx(hit_probability(per_lifetime / FIVE.lifetime_s, FIVE), abs=0.015)
    with pytest.raises(InvalidValue, match="is no rate"):
        hit_probability(-1, FIVE)
