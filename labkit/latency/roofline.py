"""A latency model from two datasheets: the machine's and the model's.

Serving never reaches the peaks of arithmetic and memory. The shares that it reaches are MFU, of arithmetic, and MBU, of
bandwidth (Pope et al., "Efficiently scaling transformer inference", MLSys 2023, reports up to 76 % MFU in prefill;
Databricks, "LLM inference performance engineering", 2023, reports 50–60 % MBU on A100 at small batches). Prefer a calibrated
model (labkit.load.probing) wherever the machine is at hand: a datasheet tells what is possible, not what happens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from labkit.latency.cards import Hardware
from labkit.latency.model import LatencyModel
from labkit.latency.model_shape import ModelShape
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Reached:
    """Shares of the datasheet's peaks that serving reaches (0 to 1), and fixed times in seconds.

    `mfu` is the share of peak arithmetic, `mbu` that of peak bandwidth. `step_s` is the time that scheduling and kernel
    launches add to a step where nothing overlaps with them, `sequence_s` the time added per sequence, and `request_s` a
    request's way through the front end. `layer_s` is the time that each layer adds to a step, whatever is in it.

    In tensor parallel every layer adds up the parts of its machines twice (all-reduce). `hop_s` is what each of these costs
    in itself, and `link` the bytes per second at which a machine sends what it has to (infinite: that takes no time).
    Raises `InvalidValue` for shares that are not above 0 and up to 1, and for a `link` that is not above 0.
    """

    mfu: float = 0.6
    mbu: float = 0.7
    step_s: float = 1e-3
    sequence_s: float = 0.0
    request_s: float = 10e-3
    layer_s: float = 0.0
    hop_s: float = 0.0
    link: float = math.inf

    def __post_init__(self) -> None:
        for name in ("mfu", "mbu"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InvalidValue(f"{name} is {value}; it is a share of the peak, above 0 and up to 1")
        if not self.link > 0:
            raise InvalidValue(f"link is {self.link}; it is bytes per second, above 0")


IDEAL = Reached(1.0, 1.0, 0.0, 0.0, 0.0)
HOPPER = Reached(mfu=0.49, mbu=0.81, step_s=0.0, sequence_s=92e-6, request_s=23e-3, layer_s=39e-6, hop_s=12e-6, link=361e9)
"""What vLLM reaches on H100 and H200 SXM with NVLink (450e9 bytes per second and direction by the datasheet): fitted by
`labkit.experiments.fit_reached` to InferenceX's 105 public points of Llama 3.1 70B in FP8, and to nothing else."""


def datasheet_model(
    shape: ModelShape,
    machine: Hardware,
    *,
    weights: str | None = None,
    kv: str = "bf16",
    machines: int = 1,
    reached: Reached | None = None,
    share: float = 0.9,
) -> LatencyModel:
    """The latency model of `shape` on `machines` of `machine` in tensor parallel.

    FLOP: 2 × active parameters per token, and 2 × the lm_head's parameters per sequence. Bytes per step: the weights, and
    the KV cache of the tokens attended to. Of the routed experts, those count that the step's tokens choose, each token
    independently and each expert equally often. `weights` is the precision of the weights, None for that of the
    configuration (the linear layers are computed in it, if activations are quantized to it too); `kv` that of the KV cache.
    Of the communication, `reached` says what counts: by default nothing.
    Raises `InvalidValue` where the weights do not fit into `share` of the memory, as `kv_tokens` does.
    """
    reached = Reached() if reached is None else reached
    kv_tokens(shape, machine, weights=weights, kv=kv, machines=machines, share=share)
    flops = machines * machine.flops(weights or shape.computed) * reached.mfu
    bandwidth = machines * machine.bandwidth * reached.mbu
    reduced = 2 * shape.depth if machines > 1 else 0  # all-reduces: after attention and after the linear layers behind it
    # In a ring each machine sends 2 × (n − 1) / n of the numbers, which are BF16 (Patarasuk, Yuan, JPDC 69(2), 2009).
    sent = reduced * 2 * shape.width * 2 * (machines - 1) / machines
    return LatencyModel(
        step_s=reached.step_s + shape.depth * reached.layer_s + reduced * reached.hop_s,
        sequence_s=reached.sequence_s + 2 * shape.head / flops,
        linear_s=2 * shape.active / flops + sent / reached.link,
        weights_s=(shape.weight_bytes(weights) - shape.expert_bytes(weights)) / bandwidth,
        experts_s=shape.expert_bytes(weights) / bandwidth,
        expert_share=shape.expert_share,
        # Attention computes in BF16, whatever the precision of the weights.
        pair_s=shape.pair_flops / (machines * machine.flops("bf16") * reached.mfu),
        kv_s=shape.kv_bytes(kv) / bandwidth,
        request_s=reached.request_s,
    )


def kv_tokens(
    shape: ModelShape,
    machine: Hardware,
    *,
    weights: str | None = None,
    kv: str = "bf16",
    machines: int = 1,
    share: float = 0.9,
) -> int:
    """Tokens of KV cache that fit, besides the weights, into `share` of the memory (vLLM's gpu_memory_utilization).

    Raises `InvalidValue` where the weights alone do not fit, for `machines` below 1, and for a model that keeps nothing per
    token.
    """
    if machines < 1:
        raise InvalidValue(f"machines is {machines}; it takes at least 1")
    if not shape.layers:
        raise InvalidValue(f"{shape.name} keeps nothing per token (recurrent states only), so no number of tokens fills it")
    weight_bytes = shape.checkpoint_bytes(weights)
    left = machines * machine.memory * share - weight_bytes
    if left <= 0:
        raise InvalidValue(
            f"{shape.name} in {weights or shape.quantization or 'bf16'} is {weight_bytes / 1e9:.1f} GB and does not fit "
            f"into {share:.0%} of {machines} × {machine.memory_gb} GB ({machine.name}); use more machines, fewer bits or a "
            "larger share"
        )
    return int(left // shape.kv_bytes(kv))


def break_even_tokens(model: LatencyModel) -> float:
    """New tokens in a step above which arithmetic, and below which reading weights, is the limit of the linear layers."""
    tokens = (model.weights_s + model.experts_s) / model.linear_s
    for _ in range(100):  # fewer tokens read fewer experts, so this falls towards the number where both times are equal
        tokens = model.weights_seconds(tokens) / model.linear_s
    return tokens
