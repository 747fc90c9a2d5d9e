"""What a model's shape says about its work: parameters, arithmetic per token, bytes per token of KV cache.

Shapes come from a transformers configuration. Parameters are counted by transformers itself, which builds the model on the
meta device: every layer, and no memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.request.errors import InvalidRequest

_SHAPES = Path(__file__).resolve().parents[2] / "data" / "shapes"
# Bytes of one number.
PRECISION_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Numbers of one model that its cost depends on.

    `parameters`: all. `read`: those in matrices that a step reads (embeddings are looked up, not read; of experts all count,
    since a batch of some size needs every one). `active`: those that one token is multiplied with, lm_head left out.
    `head`: the lm_head's, used once per sequence in a step. `kv_values`: numbers that a token leaves in the KV cache, over
    all layers. `pair_flops`: arithmetic of attention per (token, earlier token), over all layers.
    """

    name: str
    parameters: int
    read: int
    active: int
    head: int
    kv_values: int
    pair_flops: int

    def kv_bytes(self, precision: str = "bf16") -> float:
        """Bytes of KV cache per token."""
        return self.kv_values * precision_bytes(precision)

    def weight_bytes(self, precision: str = "bf16") -> float:
        """Bytes that a step reads of the weights, lm_head included."""
        return (self.read + self.head) * precision_bytes(precision)


def precision_bytes(precision: str) -> float:
    """Bytes of one number in `precision`."""
    if precision not in PRECISION_BYTES:
        raise InvalidRequest(f"precision {precision!r} is unknown; use one of {', '.join(PRECISION_BYTES)}")
    return PRECISION_BYTES[precision]


def shape(model: str | Path) -> ModelShape:
    """The shape of a model folder (or config.json), or of a name in data/shapes ("llama-3.1-8b")."""
    path = shape_path(model)
    text = path.read_text(encoding="utf-8")
    return _counted(path.parent.name if path.stem == "config" else path.stem, text)


def shape_names() -> tuple[str, ...]:
    """The shapes in data/shapes."""
    return tuple(sorted(path.stem for path in _SHAPES.glob("*.json")))


def shape_path(model: str | Path) -> Path:
    """The configuration in a model folder, or of a name in data/shapes. Raises `InvalidRequest` where there is none."""
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    elif path.suffix != ".json":
        path = _SHAPES / f"{path.name}.json"
    if not path.is_file():
        raise InvalidRequest(
            f"no model configuration at {path}; name a folder with a config.json, or one of {', '.join(shape_names())}"
        )
    return path


def shape_of(config: Mapping[str, Any], name: str = "") -> ModelShape:
    """The shape of a transformers configuration. Raises `InvalidRequest` for one that cannot be a model."""
    return _counted(name or str(config.get("model_type", "model")), json.dumps(dict(config)))


@lru_cache(maxsize=32)
def _counted(name: str, text: str) -> ModelShape:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = json.loads(text)
    _check(given)
    try:
        config = AutoConfig.for_model(**given)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError) as error:
        raise InvalidRequest(f"transformers cannot build a model of this configuration: {error}") from error
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    read = active = 0
    experts, chosen = (
        given.get("num_local_experts") or given.get("num_experts") or given.get("n_routed_experts"),
        given.get("num_experts_per_tok"),
    )
    for path, parameter in model.named_parameters():
        if parameter is embedding or parameter is head or parameter.ndim < 2:
            continue
        read += parameter.numel()
        routed = ".experts." in path and experts
        active += parameter.numel() * chosen // experts if routed else parameter.numel()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    latent = getattr(config, "kv_lora_rank", None)
    if latent:  # MLA keeps one compressed vector and one rotated key for all heads (DeepSeek-V2, arXiv 2405.04434)
        kv, width = latent + config.qk_rope_head_dim, config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    else:
        kv, width = 2 * (getattr(config, "num_key_value_heads", None) or heads) * size, 2 * size
    layers = config.num_hidden_layers
    return ModelShape(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        read=read,
        active=active,
        head=head.numel(),
        kv_values=layers * kv,
        pair_flops=layers * 2 * heads * width,
    )


def _check(config: Mapping[str, Any]) -> None:
    if "model_type" not in config:
        raise InvalidRequest("the configuration has no model_type; take the model's whole config.json")
    for field in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        value = config.get(field)
        if not isinstance(value, int) or value < 1:
            raise InvalidRequest(f"{field} is {value!r}; a model needs a whole number from 1")
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads") or config["num_attention_heads"]
    if heads % kv_heads:
        raise InvalidRequest(f"num_attention_heads is {heads}, no multiple of num_key_value_heads ({kv_heads})")
    if not config.get("head_dim") and config["hidden_size"] % heads:
        raise InvalidRequest(f"hidden_size {config['hidden_size']} is no multiple of {heads} heads; give head_dim")
    experts, chosen = config.get("num_local_experts") or config.get("num_experts"), config.get("num_experts_per_tok")
    if experts and (not chosen or chosen > experts):
        raise InvalidRequest(f"num_experts_per_tok is {chosen!r} of {experts} experts; choose 1 to {experts}")
