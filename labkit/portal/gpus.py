"""How many GPUs the assistant needs at its peak, by what is done with the memory of those who are reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.kvcache import kv_size, offload_break_even, plan
from labkit.latency import datasheet_model, hardware, shape
from labkit.portal.traffic import Portal
from labkit.request import InvalidValue

Between = Literal["keep", "recompute", "fetch"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What each limit asks for at the busiest hour, in GPUs (fractions; they are rounded up where they are paid for).

    `memory`: room for the KV caches. `speed`: the promised tokens per second. `recompute`: time to compute histories again.
    `main_memory`: room beside the GPUs for what is fetched. `later_s`: by how many seconds a turn's first token comes later.
    """

    memory: float
    speed: float
    recompute: float
    main_memory: float
    later_s: float

    @property
    def gpus(self) -> float:
        """GPUs in all. Memory and speed are needed at once; computing again takes time from both; main memory is beside."""
        return max(max(self.memory, self.speed) + self.recompute, self.main_memory)


def fleet(portal: Portal, between: Between = "recompute", kv: Literal["bf16", "fp8"] = "bf16") -> Fleet:
    """The GPUs for the assistant when, `between` a reader's turns, their KV cache is kept, or dropped and computed again
    (an engine's default), or fetched from main memory; `kv` is its precision.

    Modelled from the datasheet (`labkit.latency`); open and writing sessions by Little's law: N = arrivals · time. Raises
    `InvalidValue` for another `between`.
    """
    if between not in ("keep", "recompute", "fetch"):
        raise InvalidValue(f"between is {between!r}; use 'keep', 'recompute' or 'fetch'")
    chat, machine = portal.assistant, hardware(portal.assistant.gpu)
    starts = portal.users * chat.sessions * portal.peak_share / 3600  # sessions a second in the busiest hour
    is_open = starts * 60 * chat.open_minutes
    writing = starts * chat.turns * chat.answer / chat.tokens_per_s
    size = kv_size(chat.model, kv)
    holds = plan(chat.model, machine, chat.history, kv=kv, tokens_per_s=chat.tokens_per_s)
    again = offload_break_even(size, datasheet_model(shape(chat.model), machine, kv=kv), chat.history, chat.link_gbs)
    away = (is_open - writing) * size.sequence_bytes(chat.history)
    return Fleet(
        memory=(is_open if between == "keep" else writing) / holds.by_memory,
        speed=writing / (holds.by_speed or holds.by_memory),
        recompute=starts * chat.turns * again.recompute_s if between == "recompute" else 0.0,
        main_memory=away / chat.main_memory_bytes if between == "fetch" else 0.0,
        later_s={"keep": 0.0, "recompute": again.recompute_s, "fetch": again.fetch_s}[between],
    )
