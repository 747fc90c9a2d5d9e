"""The bytes of a checkpoint's weights: by its own quantization_config, or by one word such as "int4".

No scheme quantizes everything. Embeddings, the lm_head, norms and routers stay in 16 bits almost everywhere, other layers
are left out by name, and scales (and zero points) are added, one set per group of numbers. So bits are counted layer by
layer. The fields are those that the writers of each format publish and that vLLM reads
(vllm/model_executor/layers/quantization).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain
from typing import Any

from labkit.request import InvalidValue

PRECISION_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}
"""Bytes of one number."""
QUANTIZED_BYTES = {"fp8": 1.0, "int8": 1.0, "int4": (4 + (16 + 4) / 128) / 8}
"""Bytes of one quantized weight, scales included: int4 in groups of 128 with a scale and a zero point, as is usual for
GPTQ and AWQ."""
PLAIN_BYTES = 2.0  # of a number that is not quantized: bf16, to which an engine also casts fp32 checkpoints


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix as a quantization scheme sees it: the name of its layer, its size, and the part it belongs to.

    `experts`: weights of routed experts, several in one tensor. `beside`: in a part that reads pictures or sounds. `head`:
    the lm_head.
    """

    layer: str
    rows: int
    columns: int
    experts: bool = False
    beside: bool = False
    head: bool = False


Bits = Callable[[Matrix], float]
"""The bits of one number of a matrix, including its share of the scales."""


def precision_bytes(precision: str) -> float:
    """Bytes of one number in `precision`; raises `InvalidValue` for an unknown one."""
    if precision not in PRECISION_BYTES:
        raise InvalidValue(f"precision {precision!r} is unknown; use one of {', '.join(PRECISION_BYTES)}")
    return PRECISION_BYTES[precision]


def scheme(quantization: Mapping[str, Any]) -> Bits:
    """The bits per number of any matrix under a published `quantization_config`.

    Raises `InvalidValue` for a method that is not known here, and for a configuration that cannot be read.
    """
    given, method = _method(quantization)
    if method not in _SCHEMES:
        raise InvalidValue(
            f"quantization method {method!r} is not counted here, only {', '.join(_SCHEMES)}; say the weights' precision "
            "yourself, as in weights='int4'"
        )
    try:
        return _SCHEMES[method](given)
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
        raise InvalidValue(f"the quantization_config of method {method!r} cannot be read: {error!r}") from error


def computed(quantization: Mapping[str, Any]) -> str:
    """The precision in which an engine multiplies under a `quantization_config`: "fp8", "int8" or "bf16".

    It is the weights' where activations are quantized to the same 8 bits: FP8 by its own method, FBGEMM or ModelOpt, and
    compressed-tensors whose groups all have FP8, or all INT8, on both sides. All others count as BF16, even LLM.int8() of
    bitsandbytes, which is slower than that, and formats whose own rate no datasheet here has (NVFP4).
    """
    given, method = _method(quantization)
    if method in ("fp8", "fbgemm-fp8"):
        return "fp8"
    if method == "modelopt":
        return "fp8" if str(given.get("quant_algo") or "FP8").upper().startswith("FP8") else "bf16"
    kinds = {_both_sides(group) for group in _groups(given)} if method == "compressed-tensors" else set()
    return kinds.pop() if len(kinds) == 1 else "bf16"


def _both_sides(group: Mapping[str, Any]) -> str:
    """The precision of a group of compressed-tensors, if its weights and its activations have the same 8 bits."""
    weights, activations = group.get("weights"), group.get("input_activations")
    if not (isinstance(weights, Mapping) and isinstance(activations, Mapping)):
        return "bf16"
    own, theirs = ((side.get("num_bits", 8), side.get("type", "int")) for side in (weights, activations))
    if own != theirs or weights.get("strategy") not in ("tensor", "channel", "block"):
        return "bf16"
    return {(8, "float"): "fp8", (8, "int"): "int8"}.get(own, "bf16")


def _method(quantization: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The whole configuration, and its method by the name that it has here, or as given if it is not known."""
    inner = quantization.get("quantization")  # ModelOpt's own file nests it
    given = {**quantization, **inner} if isinstance(inner, Mapping) else quantization
    method = str(given.get("quant_method") or given.get("quant_algo") or "").lower().replace("_", "-")
    return given, next((name for name in _SCHEMES if method == name or method.startswith(f"{name}-")), method)


def _grouped(bits: int, group: int, matrix: Matrix, zeros: bool = True, scale: int = 16) -> float:
    """Bits of a packed number and its share of the group's scale and, with `zeros`, of a zero point as wide as a number."""
    group = matrix.columns if group <= 0 else group
    return bits + (scale + (bits if zeros else 0)) / group


def _gptq(given: Mapping[str, Any]) -> Bits:
    """GPTQ, AWQ and AutoRound: layers of the decoder, in groups.

    `dynamic` (GPTQModel) and `extra_config` (AutoRound) change this for single layers.
    """
    usual, group = (
        int(given.get("bits") or given.get("w_bit") or 4),
        int(given.get("group_size") or given.get("q_group_size") or 128),
    )
    left_out = _strings(given.get("modules_to_not_convert"))
    own = {**(given.get("dynamic") or {}), **(given.get("extra_config") or {})}

    def bits(matrix: Matrix) -> float:
        if matrix.beside or (matrix.head and not given.get("lm_head")) or _listed(matrix, left_out, inside=True):
            return 16
        for pattern, change in own.items():
            if _matches(matrix, pattern.removeprefix("+:").removeprefix("-:")):
                if pattern.startswith("-:") or int(change.get("bits", usual)) >= 16:
                    return 16
                return _grouped(int(change.get("bits", usual)), int(change.get("group_size", group)), matrix)
        return _grouped(usual, group, matrix)

    return bits


def _fp8(given: Mapping[str, Any]) -> Bits:
    """One byte per number, and a scale per block (DeepSeek's 128 × 128) or one for the whole matrix."""
    block = given.get("weight_block_size")
    left_out = _strings(given.get("modules_to_not_convert")) + _strings(given.get("ignored_layers"))

    def bits(matrix: Matrix) -> float:
        if matrix.head or _listed(matrix, left_out, inside=True):
            return 16
        return 8 + 32 / (block[0] * block[1] if block else matrix.rows * matrix.columns)

    return bits


def _fbgemm(given: Mapping[str, Any]) -> Bits:
    """FBGEMM's FP8: one byte per number, and a scale per row."""
    left_out = _strings(given.get("modules_to_not_convert"))
    return lambda matrix: 16 if matrix.head or _listed(matrix, left_out, inside=True) else 8 + 32 / matrix.columns


def _mxfp4(given: Mapping[str, Any]) -> Bits:
    """Only routed experts are quantized: 4 bits with one 8-bit scale per 32 numbers (OCP Microscaling 1.0)."""
    left_out = _strings(given.get("modules_to_not_convert"))
    return lambda matrix: 4 + 8 / 32 if matrix.experts and not _listed(matrix, left_out, inside=False) else 16


def _modelopt(given: Mapping[str, Any]) -> Bits:
    """NVIDIA ModelOpt: FP8, MXFP8, or NVFP4 with an 8-bit scale per 16 numbers; `ignore` and the like have wildcards."""
    kind = str(given.get("quant_algo") or "FP8").upper()
    widths = {"FP8": 8.0, "NVFP4": 4 + 8 / int(given.get("group_size") or 16), "MXFP8": 8 + 8 / 32}
    width = next((value for name, value in widths.items() if kind.startswith(name)), None)
    if width is None:
        raise InvalidValue(f"ModelOpt's {kind} is not counted here, only {', '.join(widths)}; say weights='int4' or 'fp8'")
    left_out = _strings(given.get("ignore")) + _strings(given.get("exclude_modules"))
    return lambda matrix: 16 if matrix.head or _listed(matrix, left_out, inside=True) else width


def _compressed(given: Mapping[str, Any]) -> Bits:
    """compressed-tensors (llm-compressor): groups of layers, by class, name or regular expression, with their own bits.

    As in vLLM, a group that names the layer goes before one of its class.
    """
    ignore = _strings(given.get("ignore"))
    groups = [(_strings(group.get("targets")) or ["Linear"], group) for group in _groups(given)]

    def bits(matrix: Matrix) -> float:
        if _listed(matrix, ignore, inside=False):
            return 16
        named = (group for targets, group in groups if any(_named(matrix, target) for target in targets))
        of_class = (group for targets, group in groups if "Linear" in targets)
        group = next(chain(named, of_class), None)
        weights = None if group is None else group.get("weights")
        if not weights:
            return 16  # not quantized, or only in its activations
        width, size, strategy = int(weights.get("num_bits", 8)), weights.get("group_size"), weights.get("strategy")
        if weights.get("type") == "float" and width == 4:
            return 4 + 8 / int(size or 16)
        if strategy == "block" and weights.get("block_structure"):
            rows, columns = weights["block_structure"]
            return float(width + 32 / (rows * columns))
        by_strategy = {"group": int(size or 0), "tensor_group": int(size or 0), "tensor": matrix.rows * matrix.columns}
        return _grouped(width, by_strategy.get(strategy, 0), matrix, weights.get("symmetric") is False)

    return bits


def _named(matrix: Matrix, target: str) -> bool:
    """Whether a target of compressed-tensors names the matrix, rather than the class of all of them."""
    return target != "Linear" and ((target == "ParallelLMHead" and matrix.head) or _matches(matrix, target))


def _groups(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [group for group in (given.get("config_groups") or {}).values() if isinstance(group, Mapping)]


def _bitsandbytes(given: Mapping[str, Any]) -> Bits:
    """bitsandbytes: 8 bits and a scale per row, or 4 bits and an fp32 scale (maybe quantized itself) per 64 numbers."""
    left_out = _strings(given.get("llm_int8_skip_modules"))
    four = bool(given.get("load_in_4bit") or given.get("_load_in_4bit"))
    scales = (8 + 32 / 256) / 64 if given.get("bnb_4bit_use_double_quant") else 32 / 64

    def bits(matrix: Matrix) -> float:
        if matrix.head or _listed(matrix, left_out, inside=True):
            return 16
        return 4 + scales if four else 8 + 32 / matrix.columns

    return bits


_SCHEMES: dict[str, Callable[[Mapping[str, Any]], Bits]] = {
    "gptq": _gptq,
    "awq": _gptq,
    "auto-round": _gptq,
    "fp8": _fp8,
    "fbgemm-fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "modelopt": _modelopt,
    "nvfp4": _modelopt,
    "compressed-tensors": _compressed,
    "bitsandbytes": _bitsandbytes,
}


def _strings(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [name for name in value or () if isinstance(name, str)]


def _names(matrix: Matrix) -> Iterable[str]:
    """The names that a configuration may have for the layer: checkpoints nest differently and have one tensor per expert."""
    bare = re.sub(r"^((model|language_model)\.)+", "", matrix.layer)
    layers = [bare, f"{bare}.0.gate_proj", f"{bare}.0.down_proj", f"{bare}.0.w1"] if matrix.experts else [bare]
    for layer in layers:
        yield from (layer, f"model.{layer}", f"language_model.model.{layer}", f"model.language_model.{layer}")


def _matches(matrix: Matrix, pattern: str) -> bool:
    """Whether a regular expression (with or without "re:") or a name with wildcards matches the layer."""
    try:
        return any(re.match(pattern.removeprefix("re:"), name) or fnmatch(name, pattern) for name in _names(matrix))
    except re.error:
        return any(fnmatch(name, pattern) for name in _names(matrix))


def _listed(matrix: Matrix, patterns: Iterable[str], *, inside: bool) -> bool:
    """Whether a pattern matches the layer or a module around it or, with `inside`, is any part of its name."""
    for pattern in patterns:
        if pattern.startswith("re:"):
            if _matches(matrix, pattern):
                return True
        elif "*" in pattern:
            if any(fnmatch(name, pattern) or fnmatch(name, f"{pattern}.*") for name in _names(matrix)):
                return True
        elif any(
            name == pattern or name.startswith(f"{pattern}.") or (inside and pattern in name) for name in _names(matrix)
        ):
            return True
    return False
