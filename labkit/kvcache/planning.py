"""How many sessions a machine can hold, and which limit binds.

The arithmetic is that of every sizing guide: memory minus weights, divided by the KV cache of one session. In addition, both
sizes come from the model's own configuration, the room is counted in vLLM's blocks, and a wanted speed may be the limit
before memory is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from labkit.kvcache.size import KVSize, kv_size
from labkit.latency import Config, Hardware, Reached, StepWork, datasheet_model, read_config, shape_of
from labkit.request import InvalidValue

Limit = Literal["memory", "speed", "seats"]
_MANY = 1 << 30  # ends the search where no number of sessions breaks the limit


@dataclass(frozen=True, slots=True)
class Plan:
    """The `sessions` of `context` tokens that fit at once, and the limit that binds.

    `by_memory` is the number with room for their KV cache, `by_speed` the number that get the wanted tokens per second
    (None: no such wish), and `by_seats` the engine's max_num_seqs (None: no such limit). `limit` is the smallest of these,
    the first of equals in this order. `weight_bytes` and `kv_bytes` are per machine; `blocks` is the number of KV blocks
    there. `step_s` is the duration of a decode step of all `sessions`, in seconds (None where none fit).
    """

    context: int
    sessions: int
    limit: Limit
    by_memory: int
    by_speed: int | None
    by_seats: int | None
    weight_bytes: float
    kv_bytes: int
    blocks: int
    blocks_per_session: int
    step_s: float | None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second that each session gets when all are writing; None where none fit."""
        return None if self.step_s is None else 1 / self.step_s


def plan(
    model: Config,
    machine: Hardware,
    context: int,
    *,
    weights: str | None = None,
    kv: str = "bf16",
    tokens_per_s: float | None = None,
    max_num_seqs: int | None = None,
    machines: int = 1,
    block_size: int = 16,
    share: float = 0.9,
    reached: Reached | None = None,
) -> Plan:
    """How many sessions of `context` tokens (prompt and answer, at their longest) fit on `machines` in tensor parallel.

    Memory: a `share` of it (vLLM's gpu_memory_utilization), minus the weights, is cut into blocks; one block is kept back.
    Memory for activations is not counted, so choose a `share` that leaves room for it. Tensor parallelism divides the KV
    heads among the machines; machines beyond their number, and all machines with MLA, hold copies.

    Speed: with `tokens_per_s`, a decode step of all sessions, each with its full context, takes at most 1 / `tokens_per_s`
    seconds, by the datasheet's latency model with `reached` shares of the peaks. Seats: `max_num_seqs` is the engine's.

    `weights` is the precision of the weights, None for that of the configuration (its quantization_config, layer by layer);
    `kv` is that of the KV cache. Raises `InvalidValue` where the weights do not fit into `share` of the memory, and for
    numbers out of range.
    """
    for name, value in (("context", context), ("machines", machines), ("max_num_seqs", max_num_seqs)):
        if value is not None and value < 1:
            raise InvalidValue(f"{name} is {value}; use 1 or more")
    if tokens_per_s is not None and not (tokens_per_s > 0 and math.isfinite(tokens_per_s)):
        raise InvalidValue(f"tokens_per_s is {tokens_per_s}; use a number above 0, or None for no wish")
    if not 0 < share <= 1:
        raise InvalidValue(f"share is {share}; it is a part of the machine's memory, above 0 and up to 1")
    config = read_config(model)
    shape, whole = shape_of(config), kv_size(config, kv)
    latency = datasheet_model(shape, machine, weights=weights, kv=kv, machines=machines, reached=reached, share=share)
    own = _on_each(whole, machines)
    weight_bytes = shape.checkpoint_bytes(weights) / machines
    memory = int(machine.memory * share - weight_bytes)
    blocks, each = memory // own.block_bytes(block_size), own.sequence_blocks(context, block_size)
    by_memory = max(0, blocks - 1) // each

    # Windows reduce the tokens that attention looks at. Copies of heads, and scales, add to the bytes that it reads.
    held = whole.sequence_bytes(context)
    looked_at, read = held / whole.token_bytes, held / shape.kv_bytes(kv) * own.token_bytes * machines / whole.token_bytes

    def step_s(sessions: int) -> float:
        work = StepWork(sessions, sessions, round(sessions * looked_at), round(sessions * read))
        return latency.step_seconds(work)

    by_speed = None if tokens_per_s is None else _most(lambda n: step_s(n) * tokens_per_s <= 1)
    limits: list[tuple[int, Limit]] = [(by_memory, "memory")]
    limits += [(by_speed, "speed")] if by_speed is not None else []
    limits += [(max_num_seqs, "seats")] if max_num_seqs is not None else []
    sessions, limit = min(limits, key=lambda pair: pair[0])
    return Plan(
        context,
        sessions,
        limit,
        by_memory,
        by_speed,
        max_num_seqs,
        weight_bytes,
        memory,
        blocks,
        each,
        step_s(sessions) if sessions else None,
    )


def _on_each(size: KVSize, machines: int) -> KVSize:
    """The cache on one of `machines`: its share of the heads, or a copy of one; `InvalidValue` if they do not divide."""
    for group in size.groups:
        if not group.latent and group.heads % machines and machines % group.heads:
            raise InvalidValue(
                f"{group.heads} KV heads cannot be dealt out to {machines} machines; use a number of machines that divides "
                "the heads, or is a multiple of them"
            )
    return replace(size, groups=tuple(replace(group, heads=max(1, group.heads // machines)) for group in size.groups))


def _most(holds: Callable[[int], bool]) -> int:
    """The largest number for which `holds` is true, given that it is true up to some number; 0 where it is never true."""
    if not holds(1):
        return 0
    low = 1
    while low < _MANY and holds(2 * low):
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
