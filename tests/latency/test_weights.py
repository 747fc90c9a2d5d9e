"""Bytes of quantized checkpoints and parameters of mixtures, against what is published."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.latency import IDEAL, datasheet_model, hardware, shape_of
from labkit.request import InvalidValue

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
GPT_OSS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
}
OF_8B = 6_979_321_856  # weights of Llama 3.1 8B in its layers; embeddings, lm_head and norms have the rest
ROWS = 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)  # of its layers' matrices: q, k and v, o, gate and up, down
LEFT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


def _compressed(weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"], **more}


@pytest.mark.parametrize(
    ("config", "gigabytes"),
    [
        # Sums of the safetensors files, as the models' pages list them.
        (GPT_OSS | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": LEFT}}, 65.25),
        (
            LLAMA_8B | {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}},
            5.73,
        ),
        (LLAMA_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}}, 5.74),
        (LLAMA_8B | {"quantization_config": _compressed({"num_bits": 8, "type": "float", "strategy": "tensor"})}, 9.08),
        (
            {"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            674,
        ),
    ],
    ids=["gpt-oss-120b mxfp4", "8b awq", "8b gptq", "8b fp8", "deepseek-v3 fp8 blocks"],
)
def test_checkpoints_are_as_large_as_published(config: dict[str, Any], gigabytes: float) -> None:
    assert shape_of(config).checkpoint_bytes() / 1e9 == pytest.approx(gigabytes, rel=0.01)


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        (_compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}), 4 + 16 / 128),
        (_compressed({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}), 4 + 8 / 16),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4 + 32 / 64),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}, 4 + 8 / 16),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32, "dynamic": {"-:.*": {}}}, 16),
        ({"quant_method": "fp8", "ignored_layers": [f"model.layers.{n}" for n in range(32)]}, 16),
        ({"quant_method": "mxfp4"}, 16),
        ({"quant_method": "fp8"}, 8 + 32 * 7 * 32 / OF_8B),  # seven matrices in each layer, with one scale each
        (_compressed({"num_bits": 8, "type": "float", "strategy": "tensor"}), 8 + 16 * 7 * 32 / OF_8B),
        ({"quant_method": "fbgemm_fp8"}, 8 + 32 * ROWS / OF_8B),
        (_compressed({"num_bits": 8, "type": "float", "strategy": "channel"}), 8 + 16 * ROWS / OF_8B),
    ],
    ids=str,
)
def test_layers_take_the_bits_that_the_configuration_says(quantization: dict[str, Any], bits: float) -> None:
    found = shape_of(LLAMA_8B | {"quantization_config": quantization}).checkpoint_bytes()
    assert found == pytest.approx(OF_8B * bits / 8 + 2 * (8_030_261_248 - OF_8B), rel=1e-6)


@pytest.mark.parametrize(
    ("groups", "layers", "head"),
    [
        ({"ParallelLMHead": 8}, 16, 8),
        ({"Linear": 4}, 4, 4),
        ({"Linear": 4, "ParallelLMHead": 8}, 4, 8),
        ({"Linear": 4, "re:.*lm_head": 8}, 4, 8),
    ],
)
def test_a_group_of_the_lm_head_is_of_nothing_else(groups: dict[str, int], layers: float, head: float) -> None:
    given = {
        target: {"targets": [target], "weights": {"num_bits": bits, "type": "int", "strategy": "tensor"}}
        for target, bits in groups.items()
    }
    quantization = {"quant_method": "compressed-tensors", "config_groups": given}
    found = shape_of(LLAMA_8B | {"quantization_config": quantization}).checkpoint_bytes()
    of_head = 128_256 * 4096
    assert found == pytest.approx((OF_8B * layers + of_head * head) / 8 + 2 * (8_030_261_248 - OF_8B - of_head), rel=1e-6)


def _eight_bits(weights: str, activations: str | None, strategy: str = "channel") -> dict[str, Any]:
    sides = {
        "weights": {"num_bits": 8, "type": weights, "strategy": strategy, "symmetric": True},
        "input_activations": activations and {"num_bits": 8, "type": activations, "strategy": "token", "dynamic": True},
    }
    return {"targets": ["Linear"], **sides}


def _grouped(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {f"group_{i}": group for i, group in enumerate(groups)}}


@pytest.mark.parametrize(
    ("quantization", "teraflops"),
    [
        # An H100 has 989 in BF16 and 1,979 in FP8 and in INT8 (datasheet, dense).
        (None, 989),
        ({"quant_method": "fp8"}, 1979),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1979),
        ({"quant_method": "fbgemm_fp8"}, 1979),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1979),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}, 1979),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 989),
        (_grouped(_eight_bits("float", "float")), 1979),
        (_grouped(_eight_bits("float", "float", "tensor")), 1979),
        (_grouped(_eight_bits("int", "int")), 1979),
        (_grouped(_eight_bits("float", None)), 989),
        (_grouped(_eight_bits("int", None)), 989),
        (_grouped(_eight_bits("int", "int"), _eight_bits("int", None)), 989),
        (_compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}), 989),
        ({"quant_method": "gptq", "bits": 8}, 989),
        ({"quant_method": "awq", "bits": 4}, 989),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 989),
    ],
    ids=str,
)
def test_layers_are_computed_in_8_bits_where_activations_have_them_too(
    quantization: dict[str, Any] | None, teraflops: float
) -> None:
    shape = shape_of(LLAMA_8B | {"quantization_config": quantization})
    model = datasheet_model(shape, hardware("h100"), reached=IDEAL)
    assert model.linear_s == pytest.approx(2 * OF_8B / (teraflops * 1e12), rel=1e-3)


def test_int8_is_computed_as_int8_where_a_machine_has_no_fp8() -> None:
    rates = [
        shape_of(LLAMA_8B | {"quantization_config": _grouped(_eight_bits(kind, kind))}).computed for kind in ("float", "int")
    ]
    assert [hardware("a100-80").flops(rate) for rate in rates] == [312e12, 624e12]


def test_one_word_quantizes_what_such_checkpoints_usually_do() -> None:
    shape = shape_of(LLAMA_8B)
    assert shape.checkpoint_bytes("int4") / 1e9 == pytest.approx(5.73, rel=0.01)
    assert shape.checkpoint_bytes("bf16") == shape.checkpoint_bytes() == 2 * 8_030_261_248
    with pytest.raises(InvalidValue, match="precision 'int3' is unknown"):
        shape.checkpoint_bytes("int3")


def test_an_unknown_method_is_refused_by_name_where_bytes_are_asked_for_and_only_there() -> None:
    shape = shape_of(LLAMA_8B | {"quantization_config": {"quant_method": "aqlm"}})
    assert shape.parameters == 8_030_261_248
    assert shape.checkpoint_bytes("int4") > 0
    with pytest.raises(InvalidValue, match="'aqlm' is not counted here"):
        shape.checkpoint_bytes()


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        # Billions, as the models' own pages give them; lm_head counted, embeddings not.
        (GPT_OSS, 116.8, 5.1),
        ({"model_type": "ernie4_5_moe"}, 21.8, 3.3),
        ({"model_type": "deepseek_v3"}, 671, 36.6),
        ({"model_type": "qwen3_next"}, 79.7, 3.5),
        ({"model_type": "llama4_text"}, 107.8, 16.1),
        ({"model_type": "longcat_flash"}, 561, 27),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else str(value),
)
def test_mixtures_have_the_published_parameters(config: dict[str, Any], total: float, active: float) -> None:
    shape = shape_of(config)
    assert shape.parameters / 1e9 == pytest.approx(total, rel=0.01)
    assert (shape.active + shape.head) / 1e9 == pytest.approx(active, rel=0.06)
