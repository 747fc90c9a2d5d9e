"""Fields that transformers has no architecture for, against vLLM's own conversion of the same configuration."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.latency.fields import layers_by_fields
from labkit.request import InvalidValue

BASE: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}
FAMILIES: list[dict[str, Any]] = [
    BASE | {"model_type": "plain"},
    BASE | {"model_type": "plain", "num_key_value_heads": 2, "head_dim": 96},
    BASE | {"model_type": "chatglm", "multi_query_attention": True, "multi_query_group_num": 2},
    BASE | {"model_type": "step3p5", "num_attention_groups": 4, "head_dim": 128},
    BASE | {"model_type": "RefinedWeb", "n_head_kv": 2, "new_decoder_architecture": True},
    BASE | {"model_type": "RefinedWebModel", "multi_query": True},
    BASE | {"model_type": "plamo", "hidden_size_per_head": 32, "num_key_value_heads": 2},
    BASE | {"model_type": "kimi_k2", "kv_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32},
]


def test_heads_widths_and_layers_are_those_that_vllm_converts() -> None:
    pytest.importorskip("vllm")
    import vllm.config  # noqa: F401 - the module below and this one import each other, and only this order works
    from transformers import PreTrainedConfig
    from vllm.transformers_utils import model_arch_config_convertor as convertor

    for given in FAMILIES:
        config = PreTrainedConfig(**{name: value for name, value in given.items() if name != "model_type"})
        config.model_type = given["model_type"]
        of_family = convertor.MODEL_ARCH_CONFIG_CONVERTORS.get(given["model_type"], convertor.ModelArchConfigConvertorBase)
        theirs = of_family(config, config)
        (ours,) = layers_by_fields(given)
        assert ours.count == theirs.get_num_hidden_layers(), given
        if theirs.is_deepseek_mla():
            assert (ours.heads, ours.key + ours.value) == (1, theirs.get_head_size()), given
        else:
            assert (ours.heads, ours.key, ours.value) == (
                theirs.get_total_num_kv_heads(),
                theirs.get_head_size(),
                theirs.get_head_size(),
            ), given


def test_blocks_that_say_their_own_heads_are_counted_one_by_one() -> None:
    blocks = [{"attention": {"n_heads_in_group": 4}}, {"attention": {"no_op": True}}, {"attention": {"n_heads_in_group": 8}}]
    layers = layers_by_fields(BASE | {"model_type": "nemotron-nas", "block_configs": blocks})
    assert [(kind.count, kind.heads, kind.key) for kind in layers] == [(1, 2, 64), (1, 1, 64)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_key_value_heads": 3}, "8 attention heads, no multiple of 3 KV heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"num_hidden_layers": "6"}, "num_hidden_layers is '6'"),
        ({"hidden_size": 515}, "hidden_size 515 is no multiple of 8 heads"),
        ({"layer_types": ["sliding_attention"] * 6}, "sliding_window is None"),
        ({"layer_types": ["linear_attention"] * 6}, "layers of type linear_attention"),
        ({"hybrid_override_pattern": "M*M*"}, "hybrid_override_pattern = 'M"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        layers_by_fields(BASE | {"model_type": "nonesuch"} | wrong)
