"""Fetching against recomputing: a case by hand, the closed form, and every length tried in turn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.kvcache import KVSize, kv_size, offload_break_even
from labkit.kvcache.offload import recompute_seconds
from labkit.latency import CacheLayers, LatencyModel, datasheet_model, hardware, shape
from labkit.request import InvalidValue

TOKEN = KVSize("llama-3.1-8b", "GQA", "bf16", 2, 0, (CacheLayers(32, 8, 128, 128),))
WINDOW = KVSize("windows", "GQA", "bf16", 2, 0, (CacheLayers(4, 8, 128, 128), CacheLayers(28, 8, 128, 128, 100)))
# A token's linear layers take 1 µs and a pair 1 ns; a step's own cost and its weights are paid anyway.
MODEL = LatencyModel(step_s=1e-3, sequence_s=1e-5, linear_s=1e-6, weights_s=0, pair_s=1e-9, kv_s=0)


def test_a_case_worked_out_by_hand() -> None:
    # 131,072 B a token over 32 GB/s: 4.096 µs. Computing n: n µs + n(n+1)/2 ns; at 10,000: 10 ms + 50.005 ms.
    found = offload_break_even(TOKEN, MODEL, 10_000, 32)
    assert found.recompute_s == pytest.approx(60.005e-3)
    assert (found.fetch_s, found.fetched_bytes) == (pytest.approx(40.96e-3), 1_310_720_000)
    assert found.faster == "fetch"
    assert found.link_gbs == pytest.approx(1.31072 / 60.005e-3)
    # 1 + (n + 1) / 2000 ≥ 4.096 from n = 6191; the docstring's closed form says 6192.
    assert found.tokens is not None
    assert abs(found.tokens - 6191) <= 1
    assert offload_break_even(TOKEN, MODEL, 3000, 32).faster == "recompute"


def test_a_links_latency_moves_the_break_even_up_and_may_rule_it_out() -> None:
    near, far = (offload_break_even(TOKEN, MODEL, 100, 32, link_latency_s=wait) for wait in (0, 5e-3))
    assert near.tokens is not None
    assert far.tokens is not None
    assert far.tokens > near.tokens
    assert far.link_gbs == math.inf, "100 tokens are computed in 0.1 ms"
    without_attention = LatencyModel(1e-3, 0, 1e-6, 0, 0, 0)
    assert offload_break_even(TOKEN, without_attention, 100, 32).tokens is None, "a token is always computed faster"
    assert offload_break_even(TOKEN, without_attention, 100, 200).tokens == 1, "and here always fetched faster"


@given(
    linear=st.floats(0, 3e-6),
    weights=st.floats(0, 1e-3),
    pair=st.floats(0, 1e-8),
    kv=st.floats(0, 1e-6),
    link=st.floats(1, 200),
    wait=st.floats(0, 1e-3),
    size=st.sampled_from([TOKEN, WINDOW]),
)
def test_the_break_even_is_the_first_length_that_trying_each_finds(
    linear: float, weights: float, pair: float, kv: float, link: float, wait: float, size: KVSize
) -> None:
    model = LatencyModel(1e-3, 0, linear, weights, pair, kv)
    found = offload_break_even(size, model, 50, link, link_latency_s=wait)
    margin = 1e-12  # seconds that a sum of floats may be off

    def lead(n: int) -> float:
        return recompute_seconds(model, n) - wait - size.sequence_bytes(n) / (link * 1e9)

    upto = 400 if found.tokens is None else min(found.tokens, 400)
    assert all(lead(n) < margin for n in range(1, upto))
    if found.tokens is not None:
        assert all(lead(n) >= -margin for n in range(found.tokens, found.tokens + 50))


def test_a_prefix_that_is_read_for_nothing_is_worth_no_link() -> None:
    """Of 100 tokens the weights' reading takes longer than the computing, and they are read anyway."""
    size, model = kv_size("llama-3.1-8b"), datasheet_model(shape("llama-3.1-8b"), hardware("h100"))
    found = offload_break_even(size, model, 100, 25)
    assert (found.recompute_s, found.link_gbs) == (0, math.inf)


@pytest.mark.parametrize("prefix", [5000, 60_000])
def test_the_links_break_even_bandwidth_takes_exactly_as_long_as_computing(prefix: int) -> None:
    size, model = kv_size("llama-3.1-8b"), datasheet_model(shape("llama-3.1-8b"), hardware("h100"))
    found = offload_break_even(size, model, prefix, 25)
    assert math.isfinite(found.link_gbs)
    at_it = offload_break_even(size, model, prefix, found.link_gbs)
    assert at_it.fetch_s == pytest.approx(found.recompute_s)


@pytest.mark.parametrize(
    ("prefix", "link", "wait", "message"),
    [
        (0, 32.0, 0.0, "prefix is 0"),
        (10, 0.0, 0.0, "link_gbs is 0"),
        (10, math.inf, 0.0, "link_gbs is inf"),
        (10, 32.0, -1.0, "link_latency_s is -1"),
    ],
)
def test_what_cannot_be_is_refused(prefix: int, link: float, wait: float, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        offload_break_even(TOKEN, MODEL, prefix, link, link_latency_s=wait)
