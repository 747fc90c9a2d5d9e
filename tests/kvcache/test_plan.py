"""The planner against arithmetic done by hand, and its searches against counting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labkit.kvcache import blocks_for, kv_size, plan
from labkit.latency import IDEAL, Reached, catalogue, datasheet_model, hardware, shape
from labkit.latency.model import StepWork
from labkit.request import InvalidValue

from .test_size import MIXED, MLA, MQA

H100 = hardware("h100")
LLAMA_8B = "llama-3.1-8b"


def test_llama_8b_on_an_h100_as_worked_out_by_hand() -> None:
    # 90 % of 85.52 GB less 8,030,261,248 × 2 B leaves 60,907,477,504 B; a block is 16 × 131,072 B = 2 MiB, so 29,042 of
    # them; 8,192 tokens are 512 blocks, and (29,042 − 1) / 512 = 56.7.
    found = plan(LLAMA_8B, H100, 8192)
    assert (found.weight_bytes, found.kv_bytes) == (16_060_522_496, 60_907_477_504)
    assert (found.blocks, found.blocks_per_session, found.sessions, found.limit) == (29_042, 512, 56, "memory")
    assert plan(LLAMA_8B, H100, 8192, kv="fp8").sessions == 113
    # In fp8 the layers' 6,979,321,856 weights take a byte each, embeddings, lm_head and norms two: 9.08 GB, as published
    # (RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8). That leaves 67.89 GB: 32,370 blocks.
    assert plan(LLAMA_8B, H100, 8192, weights="fp8").weight_bytes == 9_081_200_640
    assert plan(LLAMA_8B, H100, 8192, weights="fp8").sessions == 63


def test_a_wish_for_speed_binds_as_worked_out_by_hand() -> None:
    # At the datasheet's peaks a step reads 15.01 GB of weights in 4.480 ms and, per session, 8,192 × 131,072 B in 0.3205 ms:
    # 10 ms hold (10 − 4.480) / 0.3205 = 17.2 sessions; the lm_head's arithmetic, 1 µs each, changes nothing.
    found = plan(LLAMA_8B, H100, 8192, tokens_per_s=100, reached=IDEAL)
    assert (found.sessions, found.limit, found.by_memory, found.by_speed) == (17, "speed", 56, 17)
    assert found.tokens_per_s == pytest.approx(1 / (4.480e-3 + 17 * 0.3216e-3), rel=1e-3)
    none = plan(LLAMA_8B, H100, 8192, tokens_per_s=1000)
    assert (none.sessions, none.limit, none.tokens_per_s) == (0, "speed", None)
    assert plan(LLAMA_8B, H100, 8192, tokens_per_s=1, reached=IDEAL).limit == "memory"
    assert plan(LLAMA_8B, H100, 512, max_num_seqs=256).limit == "seats"


@pytest.mark.parametrize("wish", [20.0, 45.0, 60.0, 75.0])
def test_the_sessions_by_speed_are_those_that_counting_finds(wish: float) -> None:
    latency = datasheet_model(shape(LLAMA_8B), H100, reached=Reached())
    count = 0
    while latency.step_seconds(StepWork(count + 1, count + 1, (count + 1) * 2048, (count + 1) * 2048)) <= 1 / wish:
        count += 1
    assert plan(LLAMA_8B, H100, 2048, tokens_per_s=wish).by_speed == count


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_more_context_never_makes_room_for_more_sessions(key: str) -> None:
    if hardware(key).memory_gb < 20:
        with pytest.raises(InvalidValue, match="does not fit"):
            plan(LLAMA_8B, hardware(key), 1000)
        return
    plans = [plan(LLAMA_8B, hardware(key), context, tokens_per_s=10) for context in (1, 100, 1000, 8000, 32_000, 128_000)]
    assert [p.sessions for p in plans] == sorted((p.sessions for p in plans), reverse=True)
    assert all(p.sessions * p.blocks_per_session < p.blocks for p in plans)
    assert all(p.tokens_per_s is None or p.tokens_per_s >= 10 for p in plans)


def test_tensor_parallel_deals_out_heads_and_copies_what_it_cannot_divide() -> None:
    four = plan("llama-3.1-70b", H100, 8192, machines=4)
    # Each: 76.968 GB − 70,553,706,496 × 2 B / 4 = 41,691,146,752 B, and blocks of 16 × 2 × 2 heads × 128 × 2 B × 80 layers.
    assert (four.kv_bytes, four.blocks) == (41_691_146_752, 41_691_146_752 // (16 * 2 * 2 * 128 * 2 * 80))
    eight, sixteen = (plan("llama-3.1-70b", H100, 8192, machines=n) for n in (8, 16))
    assert sixteen.blocks < 1.5 * eight.blocks, "8 heads: sixteen machines keep every head twice"
    one, two = (plan(MLA, H100, 8192, machines=n) for n in (1, 2))
    assert two.sessions == one.sessions, "a latent is copied to every machine"
    with pytest.raises(InvalidValue, match="8 KV heads cannot be dealt out to 3"):
        plan(LLAMA_8B, H100, 100, machines=3)


def test_a_window_makes_room_and_speed() -> None:
    full = {**MIXED, "layer_types": ["full_attention"] * 14}
    mixed, whole = (plan(config, H100, 100_000, tokens_per_s=100, reached=IDEAL) for config in (MIXED, full))
    # The same blocks hold 2 layers instead of 14; each session has 1 group of full ones and 6 of at most 9 blocks.
    assert mixed.blocks_per_session == 100_000 // 16 + 6 * 9
    assert whole.blocks_per_session == 100_000 // 16
    assert mixed.by_memory / whole.by_memory == pytest.approx(7, rel=0.02)
    assert mixed.by_speed is not None
    assert whole.by_speed is not None
    assert mixed.by_speed > 5 * whole.by_speed


def test_the_blocks_are_those_that_vllm_would_make_of_that_memory() -> None:
    found = plan(MQA, H100, 1000, block_size=32)
    assert found.blocks == blocks_for(found.kv_bytes, MQA, 32)
    assert found.by_memory == (found.blocks - 1) // kv_size(MQA).sequence_blocks(1000, 32)


def test_no_room_for_one_session_is_zero_and_no_room_for_the_weights_is_refused() -> None:
    tight = replace(H100, memory_gb=18.0)
    found = plan(LLAMA_8B, tight, 128_000)
    assert (found.sessions, found.limit, found.step_s, found.tokens_per_s) == (0, "memory", None, None)
    with pytest.raises(InvalidValue, match="does not fit"):
        plan("llama-3.1-70b", H100, 1000)
    with pytest.raises(InvalidValue, match=r"16\.1 GB and does not fit into 80% of 1 × 20"):
        plan(LLAMA_8B, replace(H100, memory_gb=20.0), 1000, share=0.8)


def test_the_share_of_the_memory_is_the_plans_own() -> None:
    # 16.06 GB of weights in 95 % of 17.5 GB, which is 16.63 GB; in 90 % of it, 15.75 GB, they would not fit.
    small = replace(H100, memory_gb=17.5)
    found = plan(LLAMA_8B, small, 1000, share=0.95)
    assert found.kv_bytes == int(17.5e9 * 0.95 - 2 * 8_030_261_248)
    assert found.by_memory == (found.kv_bytes // (16 * 131_072) - 1) // 63
    with pytest.raises(InvalidValue, match="does not fit into 90%"):
        plan(LLAMA_8B, small, 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": 0}, "context is 0"),
        ({"machines": 0}, "machines is 0"),
        ({"max_num_seqs": 0}, "max_num_seqs is 0"),
        ({"tokens_per_s": 0.0}, "tokens_per_s is 0"),
        ({"share": 1.2}, r"share is 1\.2"),
        ({"block_size": 0}, "block_size is 0"),
        ({"kv": "int4"}, "'int4' is no KV cache's"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        plan(LLAMA_8B, H100, **{"context": 100, **arguments})  # type: ignore[arg-type]
