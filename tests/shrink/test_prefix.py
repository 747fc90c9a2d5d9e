"""When compression loses to a prefix cache: against a brute force on the provider's own bookkeeping, and on live vLLM."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.caches import provider
from labkit.cost import price_named, price_workflow
from labkit.portal import PORTAL
from labkit.request import InvalidValue
from labkit.shrink import FREE, Own, Stream, blocks, break_even, compressed, pays, saved_between

ALL = (*provider.RULES.values(), blocks(32), blocks(128))
PRICES = tuple(map(price_named, ("openai/gpt-5", "anthropic/claude-sonnet-4-5", "openai/gpt-5-mini")))
WAYS = st.sampled_from(("each", "behind", "once"))
streams = st.builds(
    Stream, st.integers(1, 5000), st.integers(1, 3000), st.sampled_from(PRICES), st.sampled_from(ALL), st.floats(0, 1)
)
DESK = Stream(PORTAL.desk.instructions, PORTAL.desk.question, PRICES[0], provider.RULES[PORTAL.desk.cache_terms])


def billed(stream: Stream, misses: int, calls: int, own_prefix: bool) -> Decimal:
    """USD a call for `calls` calls of which `misses` come so late that nothing is kept, by the provider's bookkeeping."""
    rng = random.Random(1)
    late = set(rng.sample(range(1, calls), misses - 1)) if misses else set()
    at, made = 0.0, []
    for number in range(calls):
        at += 1e6 if number in late else 1.0
        made.append(provider.Call(at, stream.prefix + stream.tail, stream.prefix, number if own_prefix else "same"))
    usages = provider.serve(made, replace(stream.rules, lifetime_s=1000.0, longest_s=None))
    return price_workflow(usages, stream.rules.price(stream.price)).total / calls


@given(streams, WAYS, st.floats(0, 1), st.integers(1, 40))
def test_both_bills_are_what_the_provider_books_call_by_call(stream, way, left, misses):
    stream = replace(stream, hits=float(Fraction(40 - misses, 40)))
    found = break_even(stream, way, left)
    assert float(found.before) == pytest.approx(float(billed(stream, misses, 40, own_prefix=False)), rel=1e-9)
    after = compressed(stream, way, left)
    assert float(found.after) == pytest.approx(float(billed(after, misses, 40, own_prefix=way == "each")), rel=1e-9)


@given(streams, WAYS, st.floats(0, 1), st.sampled_from([FREE, Own(Decimal("0.0001")), Own(Decimal(0), Decimal("0.3"), 7)]))
def test_the_sign_turns_at_the_hit_rate_that_is_named(stream, way, left, own):
    found = break_even(stream, way, left, own)
    saved = [break_even(replace(stream, hits=hits), way, left, own).saved for hits in (0.0, 1.0)]
    if found.hits is None:
        assert saved[0] * saved[1] > 0 or saved[0] == saved[1]
    else:
        at = break_even(replace(stream, hits=found.hits), way, left, own)
        assert abs(at.saved) <= Decimal("1e-9") * (at.before + at.after)
        assert saved[0] >= saved[1]  # beyond that rate it loses


@settings(max_examples=15, deadline=None)
@given(streams, WAYS, st.floats(0, 1))
def test_the_windows_are_the_lengths_that_cost_less(stream, way, left):
    found = break_even(stream, way, left)
    read = {"each": stream.prefix + stream.tail, "behind": stream.tail, "once": stream.prefix}[way]
    kept = round(left * read)
    inside = any(low <= kept <= high for low, high in pays(stream, way))
    assert inside == (found.saved > 0)


@given(streams, WAYS, st.integers(1, 99), st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_the_closed_forms_hold_where_no_steps_are_counted(stream, way, percent, prefix, tail, times):
    """Lengths are whole hundreds, so that no percentage of them is rounded."""
    rules, left = replace(stream.rules, minimum=0, increment=1), percent / 100
    smooth = replace(stream, rules=rules, prefix=100 * prefix, tail=100 * tail)
    own = Own(Decimal("0.00002"), Decimal("0.05"), 3)
    found = break_even(smooth, way, left, own)
    assert found.saved == found.before - found.after
    if abs(found.left - left) > 1e-9:
        assert (found.saved > 0) == (left < found.left)
    longer = replace(smooth, prefix=100 * prefix * times, tail=100 * tail * times)
    saved = break_even(longer, way, left, own).saved
    if found.length is None:
        assert saved <= 0
    elif abs(found.length / (longer.prefix + longer.tail) - 1) > 1e-9:
        assert (saved > 0) == (found.length < longer.prefix + longer.tail)


def test_the_desk_loses_its_cache_when_its_instructions_shrink_below_the_minimum():
    # By hand, at 1.25 and 0.125 USD a million: 1,024 tokens are read at a tenth of the price and 184 in full.
    before = (Decimal(1024) * Decimal("0.125") + Decimal(184) * Decimal("1.25")) / 1_000_000
    found = break_even(DESK, "once", 0.8)  # 915 tokens: below 1,024 none is cached
    assert found.before == before
    assert found.after == Decimal(915 + 64) * Decimal("1.25") / 1_000_000
    assert found.saved < 0
    # 1,024 · 0.1 + 120 tokens' worth: what is left must cost less than that, or stay from 1,024 on.
    assert pays(DESK, "once") == ((0, 222), (1024, 1143))


@given(streams, WAYS, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_hit_rate_that_is_only_known_between_two_gives_a_saving_between_two(stream, way, left, a, b, share):
    low, high = saved_between(stream, way, left, (a, b))
    inside = break_even(replace(stream, hits=a + share * (b - a)), way, left).saved
    assert low - Decimal("1e-12") <= inside <= high + Decimal("1e-12")


def test_a_prefix_at_a_tenth_of_the_price_needs_nine_tenths_gone():
    cheap = Stream(100_000, 0, PRICES[0], replace(blocks(16), increment=1, minimum=0))
    assert break_even(cheap, "each", 0.5).left == pytest.approx(0.1)
    assert break_even(cheap, "each", 0.5).hits == pytest.approx((1 - 0.5) / (1 - 0.1))
    assert break_even(cheap, "each", 0.5).length is None


def test_what_cannot_be_is_named():
    for make, says in (
        (lambda: replace(DESK, prefix=-1), "-1 and 64"),
        (lambda: replace(DESK, hits=1.5), "hits is 1.5"),
        (lambda: break_even(DESK, "twice", 0.5), "way is 'twice'"),
        (lambda: break_even(DESK, "once", 7), "left is 7"),
        (lambda: Own(Decimal(-1)), "less than nothing"),
    ):
        with pytest.raises(InvalidValue, match=says):
            make()
