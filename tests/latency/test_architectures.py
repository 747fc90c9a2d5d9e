"""Every architecture that the installed transformers builds in a tiny version, against its real cache and real parameters.

All of them take minutes, so every seventh is run, and those of the families that name or keep things in their own way;
LABKIT_ALL_ARCHITECTURES=1 runs all.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from labkit.latency import shape_of
from labkit.request import InvalidValue

_SMALL = {
    "vocab_size": 99,
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "intermediate_size": 96,
    "n_inner": 96,
    "ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "word_embed_proj_dim": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "intermediate_size_mlp": 96,
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "num_hidden_layers": 4,
    "num_layers": 2,
    "n_layer": 4,
    "n_layers": 4,
    "decoder_layers": 4,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "q_lora_rank": 24,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 99,
    "num_kv_shared_layers": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
# Never refused.
_ALWAYS = ("falcon", "gemma3_text", "gemma3n_text", "ernie4_5_moe", "gpt_bigcode", "gpt_oss", "granitemoe", "llama4_text")
_ALWAYS += ("mimo_v2_flash", "qwen2_moe", "qwen3_next")
_ALSO = ("deepseek_v3", "glm4_moe_lite", "jamba", "longcat_flash", "gemma4_text")
_NO_DEFAULT = {"musicgen", "musicgen_melody"}  # their configurations are made of three others
_MOST = 100_000_000  # parameters of a version that still counts as tiny


def _types() -> list[str]:
    pytest.importorskip("transformers")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - _NO_DEFAULT)
    return names if os.environ.get("LABKIT_ALL_ARCHITECTURES") else sorted({*names[::7], *_ALWAYS, *_ALSO} & set(names))


def tiny(model_type: str) -> dict[str, Any]:
    """A configuration of that architecture with everything small that its class has a field for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    default = CONFIG_MAPPING[model_type]
    has = set(vars(default())) | set(getattr(default, "attribute_map", {}))
    small: dict[str, Any] = {name: value for name, value in _SMALL.items() if name in has}
    small |= {name: 4 for name in _EXPERTS if name in has} | {name: 2 for name in _CHOSEN if name in has}
    if "kv_lora_rank" in has:
        small["num_key_value_heads"] = 4  # a latent is unfolded for every head
    return {"model_type": model_type, **small}


@pytest.mark.parametrize("model_type", _types())
def test_shape_is_what_a_tiny_real_model_has_and_keeps(model_type: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = tiny(model_type)
    try:
        shape = shape_of(config)
    except InvalidValue as refused:
        if model_type in _ALWAYS:
            raise
        pytest.skip(f"refused: {refused}")
    if shape.parameters > _MOST:
        pytest.skip(f"its class has fields of its own that are not made small here: {shape.parameters:,} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True)
    cache = getattr(out, "past_key_values", None) or out.cache_params
    cache = getattr(cache, "self_attention_cache", cache)
    kept = 0
    for layer in cache.layers:
        for tensor in (getattr(layer, name, None) for name in ("keys", "values", "indexer_keys")):
            kept += 0 if tensor is None else tensor.numel()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if model_type == "longcat_flash":  # transformers makes room for weights of experts that have none
        parameters -= sum(
            p.numel() - p.numel() * 4 // p.shape[0]
            for n, p in model.named_parameters()
            if "gate_up_proj" in n and p.ndim == 3
        )
    assert shape.parameters == parameters
    assert 3 * shape.kv_values == kept
    assert shape.active <= shape.read <= shape.parameters
