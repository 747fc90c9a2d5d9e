"""How many sessions a machine can hold, and what stops it.

The arithmetic is that of every sizing guide: memory less weights, over the KV cache of one session; what is added here is
that both come from the model's own configuration, that the room is counted in vLLM's blocks, and that a wish for speed may
bind before memory does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from labkit.kvcache.size import KVSize, kv_size
from labkit.latency import GIGA, Config, Hardware, Reached, StepWork, datasheet_model, read_config, shape_of
from labkit.request import InvalidValue

Limit = Literal["memory", "speed", "seats"]
_MANY = 1 << 30  # where nothing else ends the search


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits: `sessions` of `context` tokens at once, and the limit that binds (the first of equals, in this order).

    `by_memory` sessions have room for their KV cache; `by_speed` get their tokens per second (None: no such wish);
    `by_seats` is the engine's max_num_seqs (None: no such limit). Memory in bytes per machine; `step_s` is what a decode
    step of all `sessions` takes, in seconds (None where none fit).
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
        """Tokens per second that each session gets when all write; None where none fit."""
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
    """How many sessions of `context` tokens (prompt and answer, at their longest) `machines` in tensor parallel hold.

    Memory: `share` of it (vLLM's gpu_memory_utilization) less the weights is cut into blocks, one of which is kept back.
    What activations take is not counted: leave it out of `share`. Tensor parallelism deals out KV heads; machines beyond
    their number, and all of them in MLA, hold copies. `tokens_per_s`, for each session: a decode step of all, each with its
    full context, takes at most its inverse by the datasheet's latency model with `reached` shares of the peaks. `weights`:
    their precision, None for what the configuration says (its quantization_config, layer by layer).

    Raises `InvalidValue` when the weights do not fit, or for numbers that cannot be.
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
    latency = datasheet_model(shape, machine, weights=weights, kv=kv, machines=machines, reached=reached)
    own = _on_each(whole, machines)
    weight_bytes = shape.checkpoint_bytes(weights) / machines
    memory = int(machine.memory * share - weight_bytes)
    if memory < 0:
        raise InvalidValue(
            f"{shape.name} in {weights or shape.quantization or 'bf16'} takes {weight_bytes / GIGA:.1f} GB of each machine, "
            f"which has {machine.memory * share / GIGA:.1f} GB for it; use more machines, fewer bits or a larger share"
        )
    blocks, each = memory // own.block_bytes(block_size), own.sequence_blocks(context, block_size)
    by_memory = max(0, blocks - 1) // each

    # Windows shorten what attention looks at; copies of heads and scales of numbers add to what it reads.
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
    """What one of `machines` keeps: its share of the heads, or a copy of one."""
    for group in size.groups:
        if not group.latent and group.heads % machines and machines % group.heads:
            raise InvalidValue(
                f"{group.heads} KV heads cannot be dealt out to {machines} machines; use a number of machines that divides "
                "the heads, or is a multiple of them"
            )
    return replace(size, groups=tuple(replace(group, heads=max(1, group.heads // machines)) for group in size.groups))


def _most(holds: Callable[[int], bool]) -> int:
    """The largest number for which `holds`, which holds up to some number and not beyond; 0 where it holds for none."""
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
