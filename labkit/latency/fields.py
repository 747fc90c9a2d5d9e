"""Cache layers read from a configuration's fields, for architectures that transformers does not have.

Families have many names for the same field. The names here are those that vLLM reads (vllm/transformers_utils/
model_arch_config_convertor.py), and the tests compare the results with vLLM's own conversion. A field that changes what the
layers keep, but does not say by how much, is refused by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from labkit.latency.built import CacheLayers
from labkit.request import InvalidValue

_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "num_key_value_heads_per_layer",
    "multi_query_group_num",
    "num_attention_groups",
    "num_query_groups",
    "n_kv_heads",
    "kv_n_heads",
)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
_WIDTH = ("head_dim", "kv_channels", "hidden_size_per_head", "attention_head_dim")
# With these fields some layers keep different amounts, in ways that only the model's own code tells.
_MIXED = (
    "hybrid_override_pattern",
    "layers_block_type",
    "attn_layer_indices",
    "attn_type_list",
    "full_attention_interval",
    "linear_attn_config",
    "compress_ratios",
    "num_kv_shared_layers",
    "cla_share_factor",
    "global_head_dim",
    "num_global_key_value_heads",
    "swa_num_key_value_heads",
)
_WINDOWED = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def layers_by_fields(given: Mapping[str, Any]) -> tuple[CacheLayers, ...]:
    """The numbers per token that the layers of a language model keep, from its configuration.

    Raises `InvalidValue` naming the field that is missing or impossible, or that the layers cannot be counted with.
    """
    name = given.get("model_type", "the model")
    nested = given.get("attn_config")
    given = {**given, **(nested if isinstance(nested, Mapping) else {})}
    if mixed := [field for field in _MIXED if given.get(field)]:
        raise InvalidValue(
            f"{name} has {mixed[0]} = {given[mixed[0]]!r}: its layers keep unequal amounts, and transformers has no {name} "
            "to look at; add the layers up by hand"
        )
    if isinstance(given.get("block_configs"), list):
        return _blocks(given)
    layers, heads = _number(given, _LAYERS, "layers"), _either(given, _HEADS, "attention heads")
    if given.get("kv_lora_rank"):
        rotated = _number(given, ("qk_rope_head_dim",), "rotated numbers")
        return (CacheLayers(layers, 1, _number(given, ("kv_lora_rank",), "latent numbers"), rotated, latent=True),)
    kv_heads = _per_layer(_kv_heads(given, heads), layers, "KV heads")
    queries = _per_layer(heads, layers, "attention heads")
    for query, kv in zip(queries, kv_heads, strict=True):
        if query % kv:
            raise InvalidValue(f"{name} has {query} attention heads, no multiple of {kv} KV heads (num_key_value_heads)")
    width = _width(given, queries[0])
    value = int(given.get("v_head_dim") or width)
    windows = _windows(given, layers)
    counted = Counter(CacheLayers(1, kv, width, value, window) for kv, window in zip(kv_heads, windows, strict=True))
    return tuple(CacheLayers(n, k.heads, k.key, k.value, k.window) for k, n in counted.items())


def _kv_heads(given: Mapping[str, Any], heads: int | list[int]) -> int | list[int]:
    new = given.get("new_decoder_architecture")
    grouped = given.get("multi_query_attention")  # ChatGLM's; where it is off, the number of groups has no meaning
    if (given.get("multi_query") and not new) or given.get("attn_type") == "multiquery_attention":
        return 1
    names = [field for field in _KV_HEADS if grouped is not False or field != "multi_query_group_num"]
    if all(given.get(field) is None for field in names):
        return heads
    return _either(given, tuple(names), "KV heads")


def _width(given: Mapping[str, Any], heads: int) -> int:
    if any(given.get(field) for field in _WIDTH):
        return _number(given, _WIDTH, "numbers a head")
    hidden = _number(given, _HIDDEN, "hidden numbers")
    if hidden % heads:
        raise InvalidValue(f"hidden_size {hidden} is no multiple of {heads} heads; give head_dim")
    return hidden // heads


def _windows(given: Mapping[str, Any], layers: int) -> list[int]:
    """The window of each layer in tokens, 0 for none."""
    window = given.get("sliding_window") if given.get("use_sliding_window", True) else None
    types = given.get("layer_types") or (["sliding_attention"] if window else ["full_attention"]) * layers
    if len(types) != layers:
        raise InvalidValue(f"layer_types has {len(types)} entries for {layers} layers")
    if others := sorted(set(types) - {"full_attention", *_WINDOWED}):
        raise InvalidValue(
            f"{given.get('model_type')} has layers of type {', '.join(others)}, which transformers has no "
            f"{given.get('model_type')} to look at for; what they keep is not known here"
        )
    found = []
    for kind in types:
        field = _WINDOWED.get(kind)
        found.append(_number(given, (field,), "tokens") if field else 0)
    return found


def _blocks(given: Mapping[str, Any]) -> tuple[CacheLayers, ...]:
    """NVIDIA's searched architectures (Nemotron-NAS, "deci"), where each layer has its own number of heads per key."""
    heads = _number(given, _HEADS, "attention heads")
    width = _width(given, heads)
    counted: Counter[int] = Counter()
    for block in given["block_configs"]:
        attention = block.get("attention", {}) if isinstance(block, Mapping) else {}
        if attention.get("no_op") or attention.get("replace_with_linear"):
            continue
        counted[heads // _number(attention, ("n_heads_in_group",), "heads in a group")] += 1
    return tuple(CacheLayers(count, kv_heads, width, width) for kv_heads, count in counted.items())


def _either(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> int | list[int]:
    found = next((given[name] for name in names if given.get(name) is not None), None)
    if isinstance(found, list) and found and all(isinstance(n, int) and n > 0 for n in found):
        return found
    return _number(given, names, what)


def _number(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> int:
    name = next((name for name in names if given.get(name) is not None), names[0])
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValue(f"{name} is {value!r}; a model needs a whole number of {what} from 1")
    return value


def _per_layer(value: int | list[int], layers: int, what: str) -> list[int]:
    if isinstance(value, int):
        return [value] * layers
    if len(value) != layers:
        raise InvalidValue(f"the configuration has {len(value)} numbers of {what} for {layers} layers")
    return value
