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

    `memory`: room for the KV caches that must be on the GPUs. `speed`: the promised tokens per second. `again`: time to
    compute every returning reader's history again. `found`: the share of those histories that is still there, or fetched,
    and is not. `later_s`: by how many seconds a turn's first token comes later, on average.
    """

    memory: float
    speed: float
    again: float
    found: float
    later_s: float

    @property
    def recompute(self) -> float:
        """GPUs for the histories that are not found."""
        return self.again * (1 - self.found)

    @property
    def gpus(self) -> float:
        """GPUs in all. Memory and speed are needed at once; computing again takes time from both."""
        return max(self.memory, self.speed) + self.recompute

    @property
    def most(self) -> float:
        """GPUs where no history is found: readers who all come back after the same time, to too small a cache (LRU)."""
        return max(self.memory, self.speed) + self.again


def fleet(portal: Portal, between: Between = "recompute", kv: Literal["bf16", "fp8"] = "bf16") -> Fleet:
    """The GPUs for the assistant when, between a reader's turns, their KV cache is kept on the GPU ("keep"); or gives way to
    others and is then computed again ("recompute", an engine's default); or is in main memory as well, as far as that holds,
    and is fetched ("fetch"). `kv` is its precision.

    Modelled from the datasheet (`labkit.latency`); open and writing sessions by Little's law: N = arrivals · time.

    What is found again: of A readers away, the memory that is left over holds R, those who left last (LRU). Where pauses
    are memoryless (exponential), a reader who returns is any of the A, so the share R / A is found. R grows with the number
    of GPUs, and that falls with what is found; `fleet` solves for both. Main memory holds what the GPU holds, and more, as
    vLLM's offloading keeps it. Too much is counted where a history is shorter than at its end, too little where the
    conversations that have ended fill the cache for a while. Raises `InvalidValue` for another `between`.
    """
    if between not in ("keep", "recompute", "fetch"):
        raise InvalidValue(f"between is {between!r}; use 'keep', 'recompute' or 'fetch'")
    chat, machine = portal.assistant, hardware(portal.assistant.gpu)
    starts = portal.users * chat.sessions * portal.peak_share / 3600  # sessions a second in the busiest hour
    is_open = starts * 60 * chat.open_minutes
    writing = starts * chat.turns * chat.answer / chat.tokens_per_s
    size = kv_size(chat.model, kv)
    holds = plan(chat.model, machine, chat.history, kv=kv, tokens_per_s=chat.tokens_per_s)
    once = offload_break_even(size, datasheet_model(shape(chat.model), machine, kv=kv), chat.history, chat.link_gbs)
    memory = (is_open if between == "keep" else writing) / holds.by_memory
    speed = writing / (holds.by_speed or holds.by_memory)
    if between == "keep":
        return Fleet(memory, speed, 0.0, 1.0, 0.0)
    again = starts * chat.turns * once.recompute_s
    # R = per_gpu · GPUs − taken, and GPUs = least + again · (1 − R / A): two lines that meet.
    least, away = max(memory, speed), is_open - writing
    if between == "recompute":
        per_gpu, taken = float(holds.by_memory), writing
    else:
        per_gpu, taken = chat.main_memory_bytes / size.sequence_bytes(chat.history), 0.0
    gpus = max(least, (least + again * (1 + taken / away)) / (1 + again * per_gpu / away))
    found = min(1.0, (per_gpu * gpus - taken) / away)
    fetched = once.fetch_s if between == "fetch" else 0.0
    return Fleet(memory, speed, again, found, found * fetched + (1 - found) * once.recompute_s)
