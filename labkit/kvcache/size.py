"""How many bytes the KV cache takes, with every factor in sight.

A layer keeps, per token and KV head, a key and a value of `width` numbers. Fewer heads make it smaller: all of them in MHA,
one per group of query heads in GQA (Ainslie et al., arXiv 2305.13245), one in MQA (Shazeer, arXiv 1911.02150). MLA keeps one
compressed vector and one rotated key for all heads together (DeepSeek-V2, arXiv 2405.04434). A layer with a sliding window
keeps no more tokens than its window.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.latency.shape import precision_bytes, shape_of, shape_path
from labkit.request.errors import InvalidRequest

Config = Mapping[str, Any] | str | Path
"""A transformers configuration, a folder with one (or the config.json), or a name in data/shapes ("llama-3.1-8b")."""

_FULL, _SLIDING = "full_attention", "sliding_attention"
_PRECISIONS = ("bf16", "fp16", "fp32", "fp8", "int8")
# vLLM's int8_per_token_head keeps two fp32 scales with each head of each token; its fp8 has one scale for all, outside.
_SCALE_BYTES = {"int8": 8}
# Configurations in which layers differ in more than their window.
_UNEVEN = ("num_kv_shared_layers", "global_head_dim", "num_global_key_value_heads", "block_configs")


@dataclass(frozen=True, slots=True)
class KVSize:
    """The factors of a model's KV cache.

    `vectors` per head and token (2, key and value; 1 in MLA) of `width` numbers of `value_bytes` each, in `heads` KV heads,
    `scale_bytes` more per head and token for quantization; in `full_layers` that keep every token and `sliding_layers` that
    keep the last `window` (0 where there are none).
    """

    name: str
    kind: str
    precision: str
    vectors: int
    heads: int
    width: int
    value_bytes: int
    scale_bytes: int
    full_layers: int
    sliding_layers: int
    window: int

    @property
    def layers(self) -> int:
        """Layers that keep keys and values."""
        return self.full_layers + self.sliding_layers

    @property
    def layer_bytes(self) -> int:
        """Bytes of one token in one layer."""
        return self.heads * (self.vectors * self.width * self.value_bytes + self.scale_bytes)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all layers, while it is inside the window."""
        return self.layers * self.layer_bytes

    def sequence_bytes(self, tokens: int) -> int:
        """Bytes of a sequence of `tokens` tokens: sliding layers have dropped what is older than their window."""
        _from_zero("tokens", tokens)
        return self.layer_bytes * (self.full_layers * tokens + self.sliding_layers * min(tokens, self.window))

    @property
    def block_layers(self) -> int:
        """Layers that one of vLLM's blocks spans: all of them where they are alike.

        Where windows and full attention mix, vLLM makes groups of equally many layers, each with blocks of its own from
        one pool: as many layers as the rarer kind has, or as the more frequent one where that has less than half as many
        again (vllm/v1/core/kv_cache_utils.py, `_get_kv_cache_groups_uniform_page_size`).
        """
        if not (self.full_layers and self.sliding_layers):
            return self.layers
        few, many = sorted((self.full_layers, self.sliding_layers))
        return many if many < 1.5 * few else few

    def block_bytes(self, block_size: int) -> int:
        """Bytes of one block of `block_size` tokens."""
        if block_size < 1:
            raise InvalidRequest(f"block_size is {block_size}; a block holds at least 1 token (vLLM's default is 16)")
        return self.block_layers * block_size * self.layer_bytes

    def sequence_blocks(self, tokens: int, block_size: int) -> int:
        """Blocks that a writing sequence of `tokens` tokens holds at most, over all groups of layers.

        A window need not begin at a block's beginning, so it may reach into one block more than it fills. While a prompt
        is computed, vLLM holds the tokens of the step beside the window.
        """
        _from_zero("tokens", tokens)
        all_of_it = -(-tokens // block_size)
        inside = min(all_of_it, -(-self.window // block_size) + 1)
        full_groups, sliding_groups = -(-self.full_layers // self.block_layers), -(-self.sliding_layers // self.block_layers)
        return full_groups * all_of_it + sliding_groups * inside

    @property
    def arithmetic(self) -> str:
        """The multiplication, written out."""
        scale = f" + {self.scale_bytes} B of scales" if self.scale_bytes else ""
        each = f"{self.vectors} × {self.width} values × {self.value_bytes} B ({self.precision}){scale}"
        layers = f"{self.layers} layers"
        if self.sliding_layers:
            layers += f" ({self.sliding_layers} of them keep {self.window:,} tokens at most)"
        heads = f"{self.heads} KV head{'s' if self.heads > 1 else ''} ({self.kind})"
        return f"({each}) × {heads} × {layers} = {self.token_bytes:,} B per token"


def kv_size(config: Config, precision: str = "bf16") -> KVSize:
    """The factors of the KV cache of any transformers configuration, kept in `precision`.

    Raises `InvalidRequest` for a configuration that is no model's, a precision that is unknown, and layers that keep
    something else than keys and values (a recurrent state) or keep them unevenly.
    """
    if precision not in _PRECISIONS:
        raise InvalidRequest(f"precision {precision!r} is no KV cache's; use one of {', '.join(_PRECISIONS)}")
    given = read_config(config)
    _check_types(given.get("layer_types") or ())  # transformers may not know them, and would only say that
    shape = shape_of(given)  # it also refuses what cannot be a model
    full = _full_config(given)
    layers, heads = full.num_hidden_layers, full.num_attention_heads
    sliding, window = _sliding(full, layers)
    if getattr(full, "kv_lora_rank", None):
        kind, vectors, kv_heads = "MLA", 1, 1
    else:
        vectors, kv_heads = 2, getattr(full, "num_key_value_heads", None) or heads
        kind = "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA"
    return KVSize(
        name=shape.name,
        kind=kind,
        precision=precision,
        vectors=vectors,
        heads=kv_heads,
        width=shape.kv_values // (layers * vectors * kv_heads),
        value_bytes=int(precision_bytes(precision)),
        scale_bytes=_SCALE_BYTES.get(precision, 0),
        full_layers=layers - sliding,
        sliding_layers=sliding,
        window=window,
    )


def blocks_for(memory_bytes: int, config: Config, block_size: int = 16, precision: str = "bf16") -> int:
    """Blocks that vLLM makes of `memory_bytes` and reports as num_gpu_blocks; no request gets one of them, the null block.

    `block_size` in tokens (vLLM's default: 16 on a GPU, 128 on a CPU), `precision` of its kv_cache_dtype ("auto" is the
    model's own; "int8" is int8_per_token_head). Source: vllm/v1/core/kv_cache_utils.py, `get_kv_cache_config_from_groups`.
    """
    _from_zero("memory_bytes", memory_bytes)
    return memory_bytes // kv_size(config, precision).block_bytes(block_size)


def read_config(config: Config) -> Mapping[str, Any]:
    """The language model's configuration, from wherever it is. Raises `InvalidRequest` where there is none."""
    given = config if isinstance(config, Mapping) else json.loads(shape_path(config).read_text(encoding="utf-8"))
    text: Mapping[str, Any] = given.get("text_config", given)  # a model that also sees has its language model's in there
    return text


def _full_config(given: Mapping[str, Any]) -> Any:
    """The configuration with transformers' defaults filled in, which vLLM goes by too."""
    from transformers import AutoConfig

    full = AutoConfig.for_model(**given)
    for field in _UNEVEN:
        if getattr(full, field, None):
            raise InvalidRequest(
                f"{full.model_type} has {field} = {getattr(full, field)}: its layers keep unequal amounts, which one "
                "product cannot say; add the layers up by hand"
            )
    return full


def _sliding(full: Any, layers: int) -> tuple[int, int]:
    """(layers with a window, the window in tokens)."""
    window = getattr(full, "sliding_window", None)
    # Without layer types, a window is every layer's.
    types = getattr(full, "layer_types", None) or [_SLIDING if window else _FULL] * layers
    _check_types(types)
    sliding = list(types).count(_SLIDING) if window else 0
    return (sliding, int(window)) if window and sliding else (0, 0)


def _check_types(types: Iterable[str]) -> None:
    if others := sorted(set(types) - {_FULL, _SLIDING}):
        raise InvalidRequest(
            f"layers of type {', '.join(others)} do not keep a key and a value of each token; only full and sliding "
            "attention are counted here"
        )


def _from_zero(name: str, value: int) -> None:
    if value < 0:
        raise InvalidRequest(f"{name} is {value}; count from 0")
