"""A model's shape, which determines its work: parameters, arithmetic per token, bytes of weights and of KV cache.

Shapes come from a transformers configuration. transformers itself builds the model, on the meta device
(`labkit.latency.built`); there the parameters and the numbers in its cache are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.data import path as data_path
from labkit.latency.built import CacheLayers, Weight, build, builds, knows
from labkit.latency.weights import PLAIN_BYTES, QUANTIZED_BYTES, computed, precision_bytes, scheme
from labkit.request import InvalidValue

Config = Mapping[str, Any] | str | Path
"""A transformers configuration, a folder with one (or the config.json), or a name of `shape_names()` ("llama-3.1-8b")."""
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model's parameters: how many numbers, how a step uses them, and their bytes as published.

    `kind`: "linear" and "experts" (routed ones) are multiplied with, "head" is the lm_head, "embedding" is looked up,
    "small" are norms, biases and routers, "beside" reads pictures and sounds. `share` (0 to 1) is the share of the routed
    experts that one token goes through; 1 for other kinds. `stored` is the bytes by the configuration's quantization_config,
    None where its method is not known here. `plain` is the count of numbers in this part that no scheme quantizes.
    """

    kind: str
    numbers: int
    stored: float | None
    share: float = 1.0
    plain: int = 0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of one model that its cost depends on.

    `layers`: the numbers that its layers keep of each token. `state_bytes`: bytes that a sequence keeps besides these
    (recurrent states), whatever its length. `pair_flops`: FLOP of attention per pair (token, earlier token), over all
    layers. `heads`: query heads in a layer. `width`: numbers that stand for a token between two layers (the hidden size);
    `depth`: how many layers there are. `quantization`: the method that the configuration names, "" for none.
    `computed`: the precision in which its linear layers are multiplied, as published.
    """

    name: str
    parts: tuple[Part, ...]
    layers: tuple[CacheLayers, ...]
    state_bytes: int
    pair_flops: int
    heads: int
    width: int
    depth: int
    quantization: str = ""
    computed: str = "bf16"

    @property
    def parameters(self) -> int:
        """All parameters, those of vision and sound included."""
        return sum(part.numbers for part in self.parts)

    @property
    def read(self) -> int:
        """Numbers in the matrices that steps read: all experts included, lm_head left out; embeddings are only looked up."""
        return self._numbers("linear", "experts")

    @property
    def active(self) -> int:
        """Numbers that one token is multiplied with: of the routed experts only the share it uses; lm_head left out."""
        return round(sum(part.numbers * part.share for part in self.parts if part.kind in ("linear", "experts")))

    @property
    def head(self) -> int:
        """The lm_head's numbers, used once per sequence in a step."""
        return self._numbers("head")

    @property
    def expert_share(self) -> float:
        """Share of its routed experts that one token goes through, 1 where there are none."""
        experts = [part for part in self.parts if part.kind == "experts"]
        total = sum(part.numbers for part in experts)
        return sum(part.numbers * part.share for part in experts) / total if total else 1.0

    @property
    def kv_values(self) -> int:
        """Numbers that a token leaves in the KV cache, over all layers."""
        return sum(kind.count * kind.numbers for kind in self.layers)

    def kv_bytes(self, precision: str = "bf16") -> float:
        """Bytes of KV cache per token."""
        return self.kv_values * precision_bytes(precision)

    def weight_bytes(self, precision: str | None = None) -> float:
        """Bytes of weights that a step of many tokens reads, lm_head and all experts included."""
        return self._bytes(("linear", "experts", "head"), precision)

    def expert_bytes(self, precision: str | None = None) -> float:
        """Bytes of all routed experts; a step reads only those that its tokens go through."""
        return self._bytes(("experts",), precision)

    def checkpoint_bytes(self, precision: str | None = None) -> float:
        """Bytes of all weights in memory, in `precision`; None takes that of the configuration (bf16 if it names none).

        "fp8", "int8" and "int4" quantize the parts that such checkpoints usually do: linear layers and experts, but not
        embeddings, lm_head, norms, routers, and the parts that read pictures. "int4" includes its scales. Raises
        `InvalidValue` for an unknown precision, and for None where the configuration's method is not counted here.
        """
        return self._bytes(None, precision)

    def _numbers(self, *kinds: str) -> int:
        return sum(part.numbers for part in self.parts if part.kind in kinds)

    def _bytes(self, kinds: tuple[str, ...] | None, precision: str | None) -> float:
        parts = [part for part in self.parts if kinds is None or part.kind in kinds]
        if precision is not None:
            width, plain = precision_bytes(precision), PLAIN_BYTES
            narrow = QUANTIZED_BYTES.get(precision)
            if narrow is None:
                return width * sum(part.numbers for part in parts)
            quantized = sum(part.numbers - part.plain for part in parts if part.kind in ("linear", "experts"))
            return narrow * quantized + plain * (sum(part.numbers for part in parts) - quantized)
        stored = [part.stored for part in parts if part.stored is not None]
        if len(stored) < len(parts):
            scheme({"quant_method": self.quantization})  # raises, naming the methods that are counted
        return sum(stored)


def shape(model: str | Path) -> ModelShape:
    """The shape of a model folder (or its config.json), or of a name in `shape_names()` ("llama-3.1-8b"); see `shape_of`."""
    path = shape_path(model)
    return shape_of(read_config(path), path.parent.name if path.stem == "config" else path.stem)


def shape_names() -> tuple[str, ...]:
    """The names of the shapes that come with the package."""
    return tuple(sorted(path.stem for path in data_path("shapes").glob("*.json")))


def shape_path(model: str | Path) -> Path:
    """The path of a model's configuration: in its folder, or by a name in `shape_names()`; else raises `InvalidValue`."""
    if not isinstance(model, str | Path):
        raise InvalidValue(
            f"{model!r:.60} is no model configuration; give its fields, a folder with a config.json, or a name"
        )
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    elif path.suffix != ".json":
        path = data_path("shapes") / f"{path.name}.json"
    if not path.is_file():
        raise InvalidValue(
            f"no model configuration at {path}; name a folder with a config.json, or one of {', '.join(shape_names())}"
        )
    return path


def read_config(config: Config) -> Mapping[str, Any]:
    """The configuration as a mapping, read from where `config` points.

    Where transformers does not know the whole model (one that also reads pictures, say), this is the configuration of its
    language model. Raises `InvalidValue` where there is no configuration or no JSON object.
    """
    if isinstance(config, Mapping):
        given = config
    else:
        path = shape_path(config)
        try:
            read: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidValue(f"{path} is no JSON: {error}") from error
        if not isinstance(read, Mapping):
            raise InvalidValue(f"{path} has no JSON object; take the model's whole config.json")
        given = read
    if knows(str(given.get("model_type"))):
        return given
    for name in _NESTED:
        if isinstance(inner := given.get(name), Mapping):
            outer = {key: given[key] for key in ("quantization_config", "compression_config") if given.get(key)}
            return read_config({**outer, **inner})
    return given


def shape_of(config: Mapping[str, Any], name: str = "") -> ModelShape:
    """The shape of a transformers configuration.

    Raises `InvalidValue` for one that cannot be a model, and for an architecture that the installed transformers lacks.
    """
    given = read_config(config)
    try:
        text = json.dumps(dict(given), sort_keys=True)
    except TypeError as error:
        raise InvalidValue(f"the configuration is no JSON: {error}; take the model's config.json") from error
    return _counted(name or str(given.get("model_type", "model")), text)


@lru_cache(maxsize=32)
def _counted(name: str, text: str) -> ModelShape:
    given = json.loads(text)
    model_type = given.get("model_type")
    if not model_type:
        raise InvalidValue("the configuration has no model_type; take the model's whole config.json")
    if not builds(given):
        import transformers

        why = "its own has no shared key heads" if knows(model_type) else "it has no such architecture"
        raise InvalidValue(
            f"transformers {transformers.__version__} cannot build a model of model_type {model_type!r} ({why}), so its "
            "parameters cannot be counted; kv_size may still count its cache"
        )
    built = build(given)
    nested = given.get("text_config")
    inner = nested.get("quantization_config") if isinstance(nested, Mapping) else None
    quantization = given.get("quantization_config") or given.get("compression_config") or inner
    method = (quantization.get("quant_method") or quantization.get("quant_algo") or "unnamed") if quantization else ""
    parts = _parts(built.weights, quantization)
    known = all(part.stored is not None for part in parts)
    in_precision = computed(quantization) if quantization and known else "bf16"
    layers, states = built.layers, built.state_bytes
    inside = built.pair_flops, built.heads, built.width, built.depth
    return ModelShape(name, parts, layers, states, *inside, str(method), in_precision)


def _parts(weights: Iterable[Weight], quantization: Mapping[str, Any] | None) -> tuple[Part, ...]:
    """Weights summed by kind and share. With a quantization that is not known here, `stored` is None."""
    try:
        bits = scheme(quantization) if quantization else None
        unknown = False
    except InvalidValue:
        bits, unknown = None, True
    sums: dict[tuple[str, float], tuple[int, float, int]] = {}
    for weight in weights:
        width = PLAIN_BYTES if bits is None or weight.matrix is None else bits(weight.matrix) / 8
        numbers, stored, plain = sums.get((weight.part, weight.share), (0, 0.0, 0))
        more = weight.numbers if weight.matrix is None else 0
        sums[weight.part, weight.share] = (numbers + weight.numbers, stored + width * weight.numbers, plain + more)
    return tuple(
        Part(kind, numbers, None if unknown else stored, share, plain)
        for (kind, share), (numbers, stored, plain) in sums.items()
    )
