"""Learns a model's parameters and cache from transformers: builds the model on the meta device, runs two tokens through it.

The meta device has shapes but no memory, so a model of any size is built in seconds. Its cache then shows which layers keep
a key and a value, in how many heads and how wide, which layers have a window, which keep a state instead, and which share
another layer's. So for the cache it does not matter by what names a family's configuration calls these things.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labkit.extras import extra
from labkit.latency.weights import Matrix
from labkit.request import InvalidValue

# Fields of a configuration that do not affect the shape, and that would load code, kernels or weights.
_NOT_SHAPE = (
    "auto_map",
    "quantization_config",
    "compression_config",
    "attn_implementation",
    "_attn_implementation",
    "dtype",
)
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k", "top_k")
_KEPT = ("keys", "values", "indexer_keys", "conv_states", "recurrent_states")  # counted here; other tensors are refused
_TOKENS = 2


@dataclass(frozen=True, slots=True)
class CacheLayers:
    """`count` layers that all keep the same numbers of each token.

    For each of `heads` they keep `key` numbers and `value` numbers. `extra` are further numbers per token that belong to no
    head (an indexer's keys). `window` is the most tokens that they keep, 0 for no limit. `latent`: key and value are one
    compressed vector and one rotated key for all heads (MLA; DeepSeek-V2, arXiv 2405.04434).
    """

    count: int
    heads: int
    key: int
    value: int
    window: int = 0
    latent: bool = False
    extra: int = 0

    @property
    def numbers(self) -> int:
        """Numbers kept of one token in one of these layers."""
        return self.heads * (self.key + self.value) + self.extra


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter of a model: its part, its number of numbers, and its matrix.

    `part`: "experts" (routed ones), "linear", "head", "embedding" (looked up, not read), "small" (norms, biases, routers) or
    "beside" (the parts that read pictures and sounds). `matrix` is None for a parameter that no scheme quantizes. `share`
    (0 to 1) is the share of the routed experts that one token goes through; 1 for other parts.
    """

    part: str
    numbers: int
    matrix: Matrix | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Built:
    """A model as built from a configuration: its parameters, the numbers that its layers keep, and its attention.

    `state_bytes`: bytes that a sequence keeps besides its tokens' keys and values (recurrent states), whatever its length.
    `pair_flops`: FLOP of attention per pair (token, earlier token), over all layers. `heads`: query heads of a layer, the
    largest number where layers differ. `width`: numbers that stand for a token between two layers (the hidden size).
    `depth`: layers.
    """

    weights: tuple[Weight, ...]
    layers: tuple[CacheLayers, ...]
    state_bytes: int
    pair_flops: int
    heads: int
    width: int
    depth: int


def knows(model_type: str) -> bool:
    """Whether the installed transformers has this architecture."""
    with extra("models"):
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def builds(given: Mapping[str, Any]) -> bool:
    """Whether the installed transformers has this configuration's architecture, and builds it as the configuration says.

    Its MPT keeps a key and a value for every query head, whatever the configuration says of shared ones.
    """
    attention = given.get("attn_config")
    if given.get("model_type") == "mpt" and isinstance(attention, Mapping):
        return not attention.get("kv_n_heads") and attention.get("attn_type", "multihead_attention") == "multihead_attention"
    return knows(str(given.get("model_type")))


def build(given: Mapping[str, Any]) -> Built:
    """Build the model of a configuration that transformers knows, and count its parameters and cache.

    Raises `InvalidValue`, with transformers' reason, where the model cannot be built or its cache cannot be counted.
    """
    with _quiet():
        config, model = _model(given)
        cache, chosen = _cache(config, model)
    text = config.get_text_config(decoder=True)
    layers, state_bytes = _layers(cache, text)
    heads = _heads(text)
    weights, pair_flops = tuple(_weights(model, text, chosen)), _pair_flops(text, heads, layers)
    return Built(weights, layers, state_bytes, pair_flops, heads, text.hidden_size, text.num_hidden_layers)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' warnings, such as advice on faster kernels: nothing is computed here."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _errors() -> tuple[type[Exception], ...]:
    """The errors that transformers raises for a configuration that cannot be a model."""
    from huggingface_hub.errors import StrictDataclassError

    arithmetic = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NotImplementedError)
    return (*arithmetic, RuntimeError, StrictDataclassError, TypeError, ValueError)


def _model(given: Mapping[str, Any]) -> tuple[Any, Any]:
    with extra("models"):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

    plain = {key: value for key, value in given.items() if key not in _NOT_SHAPE}
    try:
        config = AutoConfig.for_model(**plain)
        seeing = type(config) in AutoModelForMultimodalLM._model_mapping
        if not seeing and type(config) not in AutoModelForCausalLM._model_mapping:
            raise InvalidValue(
                f"{given['model_type']} is no architecture that writes text token by token (transformers has no causal "
                "language model of it), so it has no KV cache per token; name a language model"
            )
        text = config.get_text_config(decoder=True)
        _check(text, plain)
        if getattr(text, "qk_rope_head_dim", None) and hasattr(text, "head_dim") and not _mentions(plain, "head_dim"):
            text.head_dim = text.qk_rope_head_dim  # the rotated width; the default is that of the published size
        with torch.device("meta"):
            auto = AutoModelForMultimodalLM if seeing else AutoModelForCausalLM
            return config, auto.from_config(config, dtype=torch.bfloat16).eval()
    except InvalidValue:
        raise
    except _errors() as error:
        raise InvalidValue(f"transformers cannot build a {given['model_type']} of this configuration: {error}") from error


def _cache(config: Any, model: Any) -> tuple[Any, dict[str, int]]:
    """The model's cache after a few tokens, and for each experts module the experts per token, where that can be seen."""
    import torch

    chosen: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(_: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            index = arguments[1] if len(arguments) > 1 else keywords.get("top_k_index")
            if isinstance(index, torch.Tensor) and not index.is_floating_point() and index.ndim == 2:
                chosen[name] = index.shape[-1]

        return hook

    for name, module in model.named_modules():
        if name.endswith(".experts"):
            module.register_forward_pre_hook(watch(name), with_kwargs=True)
            module.forward = _unchanged  # routing depends on values, and there are none on the meta device

    def run() -> Any:
        with torch.no_grad(), torch.device("meta"):
            return model(input_ids=torch.zeros(1, _TOKENS, dtype=torch.long), use_cache=True)

    try:
        try:
            out = run()
        except RuntimeError as error:
            if "meta tensors" not in str(error):
                raise
            with _answers():  # twice as slow and rarely needed, so only as a second try
                out = run()
    except _errors() as error:
        raise InvalidValue(
            f"transformers builds a {config.model_type}, and no token runs through it: {error}; its cache cannot be seen"
        ) from error
    cache = getattr(out, "past_key_values", None) or getattr(out, "cache_params", None)
    cache = getattr(cache, "self_attention_cache", cache)
    if not hasattr(cache, "layers"):
        kept = "no keys and values from one token to the next" if cache is None else f"a {type(cache).__name__} of its own"
        raise InvalidValue(
            f"{config.model_type} keeps {kept}, not a key and a value per layer; its cache cannot be counted here"
        )
    return cache, chosen


def _answers() -> Any:
    """A mode in which a value that is read from the meta device is 1, or true ("are all positions valid?")."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Answers(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1
            return func(*args, **(kwargs or {}))

    return Answers()


def _unchanged(hidden: Any, *_: Any, **__: Any) -> Any:
    """Replaces the experts: their output has the shape of their input."""
    return hidden


def _layers(cache: Any, text: Any) -> tuple[tuple[CacheLayers, ...], int]:
    counted: Counter[CacheLayers] = Counter()
    state = 0
    for layer in cache.layers:
        for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
            state += sum(s.numel() * s.element_size() for s in (states or {}).values() if s is not None)
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if others := sorted(
            name for name, value in vars(layer).items() if name not in _KEPT and not name.startswith("_") and _holds(value)
        ):
            raise InvalidValue(
                f"{text.model_type} keeps {', '.join(others)} beside keys and values ({type(layer).__name__}), and how "
                "they grow with the tokens is not counted here"
            )
        if keys is None or values is None or not keys.numel():
            continue
        if keys.ndim != 4 or keys.shape[-2] != _TOKENS:
            raise InvalidValue(f"{text.model_type} keeps keys of shape {tuple(keys.shape)}, not one per head and token")
        latent = keys.shape[1] == 1 and keys.shape[-1] == getattr(text, "kv_lora_rank", None)
        indexer = getattr(layer, "indexer_keys", None)
        extra = indexer.shape[-1] if indexer is not None else 0
        window = int(getattr(layer, "sliding_window", 0) or 0)
        heads = keys.shape[1]
        if text.model_type == "falcon" and text.new_decoder_architecture:
            heads = text.num_kv_heads  # transformers repeats each KV head for its query heads; no engine does
        counted[CacheLayers(1, heads, keys.shape[-1], values.shape[-1], window, latent, extra)] += 1
    return tuple(CacheLayers(n, k.heads, k.key, k.value, k.window, k.latent, k.extra) for k, n in counted.items()), state


def _holds(value: Any) -> bool:
    """Whether a value in a layer of a cache holds any numbers."""
    if isinstance(value, Mapping):
        return any(_holds(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(part) for part in value)
    return hasattr(value, "numel") and value.numel() > 0


def _weights(model: Any, text: Any, chosen: Mapping[str, int]) -> Iterator[Weight]:
    from torch import nn

    head = getattr(model.get_output_embeddings(), "weight", None)
    decoder = model.get_decoder() if text is not model.config and hasattr(model, "get_decoder") else model
    inside = {id(parameter) for parameter in decoder.parameters()}
    modules = dict(model.named_modules())
    for path, parameter in model.named_parameters():
        layer, _, _ = path.rpartition(".")
        owner, numbers = modules[layer], parameter.numel()
        rows, columns = parameter.shape[-2:] if parameter.ndim > 1 else (1, numbers)
        if parameter is head:
            yield Weight("head", numbers, Matrix(layer, rows, columns, head=True))
        elif id(parameter) not in inside:
            linear = isinstance(owner, nn.Linear) and parameter.ndim == 2
            yield Weight("beside", numbers, Matrix(layer, rows, columns, beside=True) if linear else None)
        elif isinstance(owner, nn.Embedding):
            yield Weight("embedding", numbers)
        elif parameter.ndim > 1 and (group := _experts(layer, modules)) is not None:
            experts, numbers = _counts(modules[group], parameter)
            share = min(1.0, (chosen.get(group) or _configured(text)) / experts)
            yield Weight("experts", numbers, Matrix(layer, rows, columns, experts=True), share)
        elif parameter.ndim < 2 or layer.endswith(("gate", "router")) or "Router" in type(owner).__name__:
            yield Weight("small", numbers)
        else:
            yield Weight("linear", numbers, Matrix(layer, rows, columns) if parameter.ndim == 2 else None)


def _experts(layer: str, modules: Mapping[str, Any]) -> str | None:
    """The module of routed experts that a layer is or belongs to; None for any other layer."""
    parts = layer.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if parts[end - 1] == "experts" or "ParallelExperts" in type(modules[name]).__name__:
            return name
    return None


def _counts(experts: Any, parameter: Any) -> tuple[int, int]:
    """The number of experts that a token chooses among, and of the parameter's numbers.

    Some of LongCat's experts only pass their input on and have no weights, but transformers allocates weights for them;
    these are not counted.
    """
    if parameter.ndim != 3:
        return int(getattr(experts, "num_experts", 0) or len(experts)), int(parameter.numel())
    held = parameter.shape[0]
    real = min(held, getattr(experts, "num_routed_experts", None) or held)
    return int(getattr(experts, "total_experts", held)), int(parameter.numel() * real // held)


def _configured(text: Any) -> int:
    """The number of experts per token by the configuration, under any family's name; raises `InvalidValue` if none."""
    for name in _CHOSEN:
        value = getattr(text, name, None)
        value = max(value, default=0) if isinstance(value, list) else value
        if isinstance(value, int) and value > 0:
            return value
    raise InvalidValue(f"{text.model_type} has experts, and none of {', '.join(_CHOSEN)} says how many a token goes through")


def _heads(text: Any) -> int:
    heads = getattr(text, "num_attention_heads", None) or 0
    return heads if isinstance(heads, int) else max(heads, default=0)


def _pair_flops(text: Any, heads: int, layers: tuple[CacheLayers, ...]) -> int:
    if any(kind.latent for kind in layers):
        width = text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim
        return int(2 * heads * width * sum(kind.count for kind in layers))
    return sum(2 * heads * (kind.key + kind.value) * kind.count for kind in layers)


def _check(text: Any, given: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for values that transformers accepts although they do not make a model."""
    fields = {
        name: getattr(text, name, None) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    }
    for name, value in fields.items():
        if value is not None and (not isinstance(value, int | list) or value == 0 or (isinstance(value, int) and value < 0)):
            raise InvalidValue(f"{name} is {value!r}; a model needs a whole number from 1")
    heads, kv_heads, size = fields["num_attention_heads"], getattr(text, "num_key_value_heads", None), fields["hidden_size"]
    if isinstance(heads, int) and isinstance(kv_heads, int) and kv_heads and heads % kv_heads:
        raise InvalidValue(f"num_attention_heads is {heads}, no multiple of num_key_value_heads ({kv_heads})")
    if not (isinstance(heads, int) and isinstance(size, int)) or getattr(text, "kv_lora_rank", None):
        return
    if size % heads and getattr(text, "head_dim", None) in (None, size // heads) and not _mentions(given, "head_dim"):
        raise InvalidValue(f"hidden_size {size} is no multiple of {heads} heads; give head_dim")


def _mentions(given: Any, name: str) -> bool:
    return isinstance(given, Mapping) and (name in given or any(_mentions(part, name) for part in given.values()))
