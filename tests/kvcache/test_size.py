"""Sizes against published figures and hand-worked products, and block counts against a live vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit.engines.host.arguments import has_avx512
from labkit.engines.host.environment import host_environment
from labkit.kvcache import blocks_for, kv_size
from labkit.latency import shape
from labkit.latency.model_shape import shape_names
from labkit.request import InvalidValue

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "dtype": "bfloat16",
}
GQA = {**LLAMA, "num_key_value_heads": 2, "head_dim": 64}
MQA = {**LLAMA, "num_key_value_heads": 1, "head_dim": 64}
ALL_SLIDING = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 128}
MIXED = {
    **LLAMA,
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "num_hidden_layers": 14,  # two full ones after five sliding ones each, and two more sliding ones
    "num_key_value_heads": 2,
    "sliding_window": 128,
    "sliding_window_pattern": 6,
    "query_pre_attn_scalar": 32,
}
MLA: dict[str, Any] = {
    **LLAMA,
    "model_type": "deepseek_v2",
    "architectures": ["DeepseekV2ForCausalLM"],
    "num_hidden_layers": 2,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
}
del MLA["head_dim"]


UNKNOWN = {**LLAMA, "model_type": "nonesuch"}
QWEN3_NEXT = {"model_type": "qwen3_next", "num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("config", "token_bytes"),
    [
        # Falcon-7B keeps one head (multi_query), Falcon-40B eight.
        ({"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 4, "num_attention_heads": 71}, 2 * 64 * 2 * 4),
        (
            {
                "model_type": "falcon",
                "hidden_size": 8192,
                "num_hidden_layers": 4,
                "num_attention_heads": 128,
                "num_kv_heads": 8,
                "new_decoder_architecture": True,
            },
            2 * 8 * 64 * 2 * 4,
        ),
        ({"model_type": "gpt_bigcode", "n_embd": 6144, "n_head": 48, "n_layer": 4}, 2 * 128 * 2 * 4),
        # Gemma 3 4B's published configuration leaves heads (4) and width (256) to the defaults.
        (
            {
                "model_type": "gemma3",
                "text_config": {
                    "hidden_size": 2560,
                    "model_type": "gemma3_text",
                    "num_hidden_layers": 34,
                    "sliding_window": 1024,
                },
            },
            2 * 4 * 256 * 2 * 34,
        ),
        # GLM-4.7-Flash: MLA, and hidden_size is no multiple of its 20 heads.
        (
            {
                "model_type": "glm4_moe_lite",
                "hidden_size": 2048,
                "num_hidden_layers": 47,
                "num_attention_heads": 20,
                "num_key_value_heads": 20,
                "n_routed_experts": 4,
                "kv_lora_rank": 512,
                "qk_nope_head_dim": 192,
                "qk_rope_head_dim": 64,
                "v_head_dim": 256,
            },
            (512 + 64) * 2 * 47,
        ),
        # Qwen3-Next: one layer of four attends, the others keep a state.
        (QWEN3_NEXT, 2 * 2 * 256 * 2),
        # Gemma 3n: the last layers share the keys and values of earlier ones.
        (
            {
                "model_type": "gemma3n_text",
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 10,
                "num_kv_shared_layers": 5,
                "activation_sparsity_pattern": None,
            },
            2 * 2 * 256 * 2 * 5,
        ),
        (
            {"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32, "hidden_size": 4096, "kv_channels": 128}
            | {"multi_query_attention": True, "multi_query_group_num": 2},
            2 * 2 * 128 * 2 * 28,
        ),
        # Replit's code model is an MPT whose query heads share keys, which transformers' MPT cannot do.
        (
            {"model_type": "mpt", "d_model": 3072, "n_heads": 24, "n_layers": 32, "vocab_size": 32768}
            | {"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 8}},
            2 * 8 * 128 * 2 * 32,
        ),
        (
            {"model_type": "mpt", "d_model": 2048, "n_heads": 16, "n_layers": 24}
            | {"attn_config": {"attn_type": "multiquery_attention"}},
            2 * 1 * 128 * 2 * 24,
        ),
        ({"model_type": "mpt", "d_model": 512, "n_heads": 4, "n_layers": 2, "vocab_size": 99}, 2 * 4 * 128 * 2 * 2),
        ({**UNKNOWN, "num_key_value_heads": [1, 2, 4]}, 2 * 32 * 2 * (1 + 2 + 4)),
        ({**UNKNOWN, "v_head_dim": 16}, 4 * (32 + 16) * 2 * 3),
        ({**UNKNOWN, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, (512 + 64) * 2 * 3),
    ],
    ids=str,
)
def test_other_families_fields_and_defaults_are_read(config: dict[str, Any], token_bytes: int) -> None:
    assert kv_size(config).token_bytes == token_bytes


def test_layers_of_a_state_keep_the_same_for_any_length() -> None:
    size = kv_size(QWEN3_NEXT)
    assert size.state_bytes > 0
    assert size.sequence_bytes(1000) - size.sequence_bytes(1) == 999 * size.token_bytes
    assert size.sequence_bytes(0) == 0


def test_llama_4_attends_in_chunks_and_keeps_every_token_of_a_chunk() -> None:
    scout = {"model_type": "llama4_text", "hidden_size": 128, "intermediate_size": 64, "intermediate_size_mlp": 64}
    scout |= {"num_hidden_layers": 8, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128}
    scout |= {"num_local_experts": 2, "attention_chunk_size": 8192, "vocab_size": 99}
    size = kv_size(scout)
    assert (size.token_bytes, size.window) == (2 * 8 * 128 * 2 * 8, 8192)
    assert size.full_layers == 2


@pytest.mark.parametrize(
    ("config", "kind", "token_bytes"),
    [
        ("llama-3.1-8b", "GQA", 2 * 8 * 128 * 2 * 32),
        ("llama-3.1-70b", "GQA", 2 * 8 * 128 * 2 * 80),
        ("mixtral-8x7b", "GQA", 2 * 8 * 128 * 2 * 32),
        (LLAMA, "MHA", 2 * 4 * 32 * 2 * 3),
        (GQA, "GQA", 2 * 2 * 64 * 2 * 3),
        (MQA, "MQA", 2 * 1 * 64 * 2 * 3),
        (MLA, "MLA", (512 + 64) * 2 * 2),
        (MIXED, "GQA", 2 * 2 * 32 * 2 * 14),
    ],
    ids=["8b", "70b", "mixtral", "mha", "gqa", "mqa", "mla", "mixed"],
)
def test_a_token_takes_the_product_of_the_factors(config: Any, kind: str, token_bytes: int) -> None:
    size = kv_size(config)
    assert (size.kind, size.token_bytes) == (kind, token_bytes)
    assert kv_size(config, "fp8").token_bytes == token_bytes // 2


def test_an_opt_13b_sequence_takes_what_the_vllm_paper_says() -> None:
    opt_13b = {**LLAMA, "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40}
    size = kv_size({**opt_13b, "head_dim": 128}, "fp16")
    assert size.token_bytes == 800 * 1024, "section 3: 2 × 5120 × 40 layers × 2 bytes = 800 KB per token"
    assert size.sequence_bytes(2048) / 1e9 == pytest.approx(1.6, rel=0.06), "and up to 1.6 GB per request"


@pytest.mark.parametrize("name", shape_names())
def test_sizes_agree_with_the_latency_models_shapes(name: str) -> None:
    assert kv_size(name).token_bytes == shape(name).kv_bytes("bf16")


def test_the_arithmetic_is_written_out() -> None:
    assert kv_size("llama-3.1-8b").arithmetic == (
        "(2 × 128 values × 2 B (bf16)) × 8 KV heads (GQA) × 32 layers = 131,072 B per token"
    )
    assert "+ 8 B of scales) × 1 KV head (MQA)" in kv_size(MQA, "int8").arithmetic
    assert "14 layers (12 of them keep 128 tokens at most)" in kv_size(MIXED).arithmetic


def test_sliding_layers_hold_at_most_their_window() -> None:
    size = kv_size(MIXED)
    for tokens in (0, 1, 127, 128, 129, 1000):
        by_hand = sum(
            2 * 2 * 32 * 2 for layer in range(14) for place in range(tokens) if layer in (5, 11) or place >= tokens - 128
        )
        assert size.sequence_bytes(tokens) == by_hand
    assert kv_size(ALL_SLIDING).sequence_bytes(10_000) == kv_size(ALL_SLIDING).sequence_bytes(128)
    assert kv_size({**ALL_SLIDING, "sliding_window": None}).sliding_layers == 0


def test_a_sequence_of_a_mixed_model_holds_blocks_of_every_group() -> None:
    size = kv_size(MIXED)  # one group of the 2 full layers, six groups of 2 sliding ones
    assert (size.block_layers, size.block_bytes(32)) == (2, 2 * 32 * 2 * 2 * 32 * 2)
    assert size.sequence_blocks(64, 32) == 7 * 2
    assert size.sequence_blocks(1000, 32) == 32 + 6 * (128 // 32 + 1)
    assert kv_size(GQA).sequence_blocks(65, 32) == 3


def test_a_picture_models_language_part_is_found() -> None:
    assert kv_size({"model_type": "seeing", "text_config": MQA}).token_bytes == kv_size(MQA).token_bytes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kv_size(MQA, "int3"), "'int3' is no KV cache's; use one of bf16"),
        (lambda: kv_size({**MQA, "num_key_value_heads": 3}), "no multiple of num_key_value_heads"),
        (lambda: kv_size("no-such-shape"), "no model configuration"),
        (lambda: kv_size([1, 2]), r"\[1, 2\] is no model configuration"),
        (lambda: kv_size({**UNKNOWN, "layer_types": ["mamba"] * 3}), "layers of type mamba"),
        (lambda: kv_size({**UNKNOWN, "num_kv_shared_layers": 4}), "num_kv_shared_layers = 4: its layers keep unequal"),
        (lambda: kv_size({**UNKNOWN, "num_key_value_heads": [1, 2]}), "2 numbers of KV heads for 3 layers"),
        (lambda: kv_size({"model_type": "nonesuch", "hidden_size": 64}), "num_hidden_layers is None"),
        (lambda: kv_size({"model_type": "bert"}), "keeps no keys and values from one token to the next"),
        (lambda: kv_size({"model_type": "t5"}), "no architecture that writes text token by token"),
        (lambda: kv_size({"model_type": "mamba", "num_hidden_layers": 1}), "nothing per token: it has no KV cache"),
        (lambda: kv_size(QWEN3_NEXT).block_bytes(16), "recurrent states"),
        (lambda: kv_size(MQA).block_bytes(0), "block_size is 0"),
        (lambda: kv_size(MQA).sequence_bytes(-1), "tokens is -1"),
        (lambda: blocks_for(-1, MQA), "memory_bytes is -1"),
    ],
)
def test_what_cannot_be_counted_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        call()


LIVE = [
    ("small", 32, "auto"),
    ("small", 128, "fp8"),
    ("large", 128, "auto"),
    ("large", 32, "fp8"),
    (LLAMA, 32, "auto"),
    (GQA, 96, "fp8"),
    (MQA, 128, "auto"),
    (ALL_SLIDING, 32, "auto"),
    (MIXED, 32, "auto"),
    (MLA, 32, "auto"),
]
MEMORY = 10_000_000  # a multiple of no block


def test_vllms_own_page_of_int8_has_the_scales_that_are_counted() -> None:
    pytest.importorskip("vllm")
    import torch
    from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVQuantMode

    page = TritonAttentionBackend.customize_spec(
        FullAttentionSpec(
            block_size=16,
            num_kv_heads=2,
            head_size=64,
            dtype=torch.int8,
            kv_quant_mode=KVQuantMode.INT8_PER_TOKEN_HEAD,
        )
    )
    assert kv_size(GQA, "int8").block_bytes(16) == 3 * page.page_size_bytes


@pytest.mark.live
@pytest.mark.timeout(900)
def test_vllm_makes_exactly_so_many_blocks(tmp_path: Path) -> None:
    """One process starts an engine for each case and says how many blocks it made of `MEMORY` bytes."""
    pytest.importorskip("vllm")
    from labkit.lab.models import model_path

    job = []
    cases = [case for case in LIVE if case[2] != "fp8" or has_avx512()]  # without it vLLM has no such cache to ask
    for number, (config, block_size, dtype) in enumerate(cases):
        model = tmp_path / str(number)
        if isinstance(config, dict):
            model.mkdir()
            (model / "config.json").write_text(json.dumps(config))
        else:
            model = Path(model_path(config))
        job.append({"model": str(model), "block_size": block_size, "kv_cache_dtype": dtype})
    # In one process: a process for each engine would import vLLM anew.
    environment = host_environment() | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, __file__, json.dumps(job), str(tmp_path / "out.json")]
        done = subprocess.run(command, stdout=log, stderr=log, env=environment, timeout=800)
    assert done.returncode == 0, (tmp_path / "log").read_text()[-4000:]
    reports = json.loads((tmp_path / "out.json").read_text())
    for (config, wished, dtype), arguments, (blocks, block_size) in zip(cases, job, reports, strict=True):
        precision = {"auto": "bf16"}.get(dtype, dtype)
        assert blocks == blocks_for(MEMORY, arguments["model"], block_size, precision), (arguments, block_size)
        assert block_size == wished or config is MLA, "on a CPU without AMX, vLLM's MLA has blocks of 16 whatever one wishes"


def _report(job: list[dict[str, Any]], out: Path) -> None:
    import gc

    from vllm import LLM

    reports = []
    for arguments in job:
        llm = LLM(
            **arguments,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            kv_cache_memory_bytes=MEMORY,
            max_model_len=256,
        )
        cache = llm.llm_engine.vllm_config.cache_config
        reports.append((cache.num_gpu_blocks, cache.block_size))
        del llm
        gc.collect()
    out.write_text(json.dumps(reports))


if __name__ == "__main__":
    _report(json.loads(sys.argv[1]), Path(sys.argv[2]))
