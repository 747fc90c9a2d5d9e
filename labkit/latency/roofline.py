"""A latency model from two datasheets: the machine's and the model's.

Arithmetic and memory are never used to their peaks. What serving reaches is given as two shares: MFU, of the arithmetic, and
MBU, of the bandwidth (Pope et al., "Efficiently scaling transformer inference", MLSys 2023, reports up to 76 % MFU in
prefill; Databricks, "LLM inference performance engineering", 2023, reports 50–60 % MBU on A100 at small batches). Prefer a
calibrated model (labkit.load.probing) wherever the machine is at hand: a datasheet says what is possible, not what happens.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.latency.cards import Hardware
from labkit.latency.model import LatencyModel
from labkit.latency.model_shape import ModelShape
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Reached:
    """Shares of the datasheet's peaks, and what a step costs beside them, in seconds.

    `step_s` is what scheduling and launching kernels add to a step where nothing hides it, `sequence_s` per sequence,
    `request_s` the request's way through the front end.
    """

    mfu: float = 0.6
    mbu: float = 0.7
    step_s: float = 1e-3
    sequence_s: float = 0.0
    request_s: float = 10e-3

    def __post_init__(self) -> None:
        for name in ("mfu", "mbu"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InvalidValue(f"{name} is {value}; it is a share of the peak, above 0 and up to 1")


IDEAL = Reached(1.0, 1.0, 0.0, 0.0, 0.0)


def datasheet_model(
    shape: ModelShape,
    machine: Hardware,
    *,
    weights: str | None = None,
    kv: str = "bf16",
    machines: int = 1,
    reached: Reached | None = None,
) -> LatencyModel:
    """The latency model of `shape` on `machines` of `machine` in tensor parallel, communication left out.

    FLOP per token: 2 × active parameters, and 2 × the lm_head's per sequence. Bytes per step: the weights (of routed experts
    those that its tokens choose, each for itself and all equally often), and the KV cache of the tokens attended to.
    `weights`: their precision, None for what the configuration says. Raises `InvalidValue` when the weights do not fit
    into memory.
    """
    reached = Reached() if reached is None else reached
    kv_tokens(shape, machine, weights=weights, kv=kv, machines=machines)
    flops = machines * machine.flops(_computed(shape, weights)) * reached.mfu
    bandwidth = machines * machine.bandwidth * reached.mbu
    return LatencyModel(
        step_s=reached.step_s,
        sequence_s=reached.sequence_s + 2 * shape.head / flops,
        linear_s=2 * shape.active / flops,
        weights_s=(shape.weight_bytes(weights) - shape.expert_bytes(weights)) / bandwidth,
        experts_s=shape.expert_bytes(weights) / bandwidth,
        expert_share=shape.expert_share,
        # Attention computes in BF16 whatever the weights are kept in.
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
    """Tokens of KV cache that fit beside the weights into `share` of the memory (vLLM's gpu_memory_utilization).

    Raises `InvalidValue` when not even the weights fit.
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
            f"into {share:.0%} of {machines} × {machine.memory_gb} GB ({machine.name}); use more machines or fewer bits"
        )
    return int(left // shape.kv_bytes(kv))


def break_even_tokens(model: LatencyModel) -> float:
    """New tokens in a step above which its linear layers are bound by arithmetic, and below which by reading weights."""
    tokens = (model.weights_s + model.experts_s) / model.linear_s
    for _ in range(100):  # the more tokens, the more experts they read: falls towards the one length where both are equal
        tokens = model.weights_seconds(tokens) / model.linear_s
    return tokens


def _computed(shape: ModelShape, weights: str | None) -> str:
    """The precision whose units compute: FP8 and INT8 checkpoints have their own, anything else is widened to BF16."""
    return weights or ("fp8" if shape.quantization == "fp8" else "bf16")
