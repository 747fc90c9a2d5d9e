"""Shapes, hardware and the roofline, against published counts and worked examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labkit.lab import MODELS, model_path
from labkit.latency import StepWork
from labkit.latency.cards import Hardware, catalogue, hardware, read_entry
from labkit.latency.model_shape import shape, shape_of
from labkit.latency.roofline import IDEAL, Reached, break_even_tokens, datasheet_model, kv_tokens
from labkit.request import InvalidValue


@pytest.mark.parametrize(
    ("name", "parameters"),
    # As the safetensors indexes on the models' pages count them.
    [("llama-3.1-8b", 8_030_261_248), ("llama-3.1-70b", 70_553_706_496), ("mixtral-8x7b", 46_702_792_704)],
)
def test_parameters_are_the_published_ones(name: str, parameters: int) -> None:
    assert shape(name).parameters == parameters


def test_a_mixture_reads_all_experts_and_multiplies_with_two() -> None:
    # Mistral, "Mixtral of experts", 2024: 47B parameters, 13B active per token.
    mixtral = shape("mixtral-8x7b")
    assert (mixtral.active + mixtral.head) / 1e9 == pytest.approx(12.8, abs=0.2)
    assert mixtral.read / 1e9 == pytest.approx(46.4, abs=0.2)


def test_kv_bytes_are_the_closed_form() -> None:
    assert shape("llama-3.1-8b").kv_bytes() == 2 * 32 * 8 * 128 * 2 == 131_072
    assert shape("llama-3.1-70b").kv_bytes("fp8") == 2 * 80 * 8 * 128
    mha = shape_of(
        {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 100,
        }
    )
    assert mha.kv_bytes() == 2 * 2 * 64 * 2


def test_latent_attention_keeps_one_vector_for_all_heads() -> None:
    tiny = shape_of(
        {
            "model_type": "deepseek_v2",
            "hidden_size": 64,
            "intermediate_size": 128,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 100,
            "kv_lora_rank": 16,
            "q_lora_rank": None,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        }
    )
    assert tiny.kv_values == 2 * (16 + 8)
    assert tiny.active < tiny.read


@pytest.mark.parametrize("name", MODELS)
def test_the_labs_own_shapes_are_counted_from_their_folders(name: str) -> None:
    from safetensors import safe_open

    with safe_open(model_path(name) / "model.safetensors", framework="np") as file:
        stored = sum(int(__import__("math").prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118
    assert shape(model_path(name)).parameters == stored


def test_decoding_a_7b_on_an_a100_takes_the_published_least_time() -> None:
    # Databricks, "LLM inference performance engineering" (2023): 14 GB of FP16 weights over 2 TB/s is 7 ms a token.
    seven = shape_of(
        {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
        }
    )
    model = datasheet_model(seven, hardware("a100-80"), reached=IDEAL)
    assert model.step_seconds(StepWork.of([(1, 1)])) * 1e3 == pytest.approx(14 / 2, rel=0.1)


def test_prefill_is_bound_by_arithmetic_and_decode_by_memory() -> None:
    model = datasheet_model(shape("llama-3.1-8b"), hardware("h100"), reached=IDEAL)
    # 2 FLOP a parameter and token against 2 bytes a parameter: the ridge point in tokens is peak / bandwidth.
    assert break_even_tokens(model) == pytest.approx(hardware("h100").ridge(), rel=0.1)
    prefill = model.step_seconds(StepWork.of([(2000, 0)]))
    assert prefill == pytest.approx(2 * 2000 * 7.5e9 / 989e12, rel=0.1)


def test_what_fits_is_what_is_left_beside_the_weights() -> None:
    eight = shape("llama-3.1-8b")
    assert kv_tokens(eight, hardware("h100")) == int((76.968e9 - 2 * 8_030_261_248) // 131_072)
    with pytest.raises(InvalidValue, match=r"llama-3.1-70b in bf16 is 141.1 GB and does not fit"):
        kv_tokens(shape("llama-3.1-70b"), hardware("h100"))
    assert kv_tokens(shape("llama-3.1-70b"), hardware("h100"), machines=4) > 100_000


def test_the_catalogue_is_plausible() -> None:
    assert sum(h.kind == "gpu" for h in catalogue().values()) >= 12
    assert sum(h.kind == "cpu" for h in catalogue().values()) == 2
    for machine in catalogue().values():
        assert machine.source
        # FLOP per byte: GPUs of these generations lie between 75 (4090's rivals) and 420 (L40S).
        assert (100 if machine.kind == "gpu" else 10) < machine.ridge() < 800, machine.name
        if machine.fp8 is not None:
            assert machine.fp8 == pytest.approx(2 * machine.bf16, rel=0.02), "dense FP8 is twice dense BF16 on all of these"


@pytest.mark.parametrize(
    ("key", "mib"),
    [("h100", 81_559), ("a100-80", 81_920), ("a100-40", 40_960), ("l4", 23_034), ("h200", 143_771), ("rtx4090", 24_564)],
)
def test_memory_is_what_the_driver_reports(key: str, mib: int) -> None:
    assert hardware(key).memory == pytest.approx(mib * 2**20, rel=1e-3)


def test_a_mixtures_step_reads_the_experts_that_its_tokens_choose() -> None:
    mixtral, h100 = shape("mixtral-8x7b"), replace(hardware("h100"), memory_gb=200.0)
    model = datasheet_model(mixtral, h100, reached=IDEAL)
    # One token reads 2 of 8 experts, which are the active parameters; n tokens read 1 − (6/8)ⁿ of them on average.
    alone = (mixtral.active + mixtral.head) * 2 / h100.bandwidth
    assert model.weights_seconds(1) == pytest.approx(alone, rel=1e-6)
    rng = np.random.default_rng(0)
    for tokens in (2, 4, 16):
        drawn = [len({e for _ in range(tokens) for e in rng.choice(8, 2, replace=False)}) / 8 for _ in range(4000)]
        read = (mixtral.weight_bytes() - (1 - np.mean(drawn)) * mixtral.expert_bytes()) / h100.bandwidth
        assert model.weights_seconds(tokens) == pytest.approx(read, rel=0.01)
    assert model.weights_seconds(1000) == pytest.approx(mixtral.weight_bytes() / h100.bandwidth)
    ridge = break_even_tokens(model)
    assert model.linear_s * ridge == pytest.approx(model.weights_seconds(ridge))


def test_impossible_hardware_is_refused() -> None:
    h100 = hardware("h100")
    entry = {name: getattr(h100, name) for name in Hardware.__slots__}
    assert read_entry(entry) == h100
    with pytest.raises(InvalidValue, match="lacks source"):
        read_entry({k: v for k, v in entry.items() if k != "source"})
    with pytest.raises(InvalidValue, match="unknown turbo"):
        read_entry({**entry, "turbo": 1})
    with pytest.raises(InvalidValue, match="bandwidth_gbs is 0"):
        replace(h100, bandwidth_gbs=0)
    with pytest.raises(InvalidValue, match="printed with sparsity"):
        replace(h100, fp8=9 * 989)
    with pytest.raises(InvalidValue, match="no hardware 'h1000'"):
        hardware("h1000")
    with pytest.raises(InvalidValue, match=r"mfu is 1\.2"):
        Reached(mfu=1.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"model_type": None}, "model_type"),
        ({"hidden_size": 65, "head_dim": None}, "hidden size"),
        ({"model_type": "nonesuch"}, "cannot build.*no such architecture"),
        ({"model_type": "mpt", "attn_config": {"kv_n_heads": 2}}, "cannot build.*no shared key heads"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, object], message: str) -> None:
    good = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    config = {k: v for k, v in {**good, **wrong}.items() if v is not None}
    with pytest.raises(InvalidValue, match=message):
        shape_of(config)
