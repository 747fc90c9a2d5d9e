"""A workload in numbers, and the simulated answers to its requests."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labkit.request import InvalidValue

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival: `arrival` in seconds, `input_tokens` and `output_tokens` per request.

    `prefix_ids`, where known, gives for each request the ids of its prompt's blocks of `prefix_block` tokens (the last may
    be partial): equal ids after equal ids stand for equal tokens, as in the Mooncake traces. Without them no two requests
    share a beginning. Raises `InvalidValue` for a trace that is empty, not sorted, or inconsistent.
    """

    arrival: Floats
    input_tokens: Ints
    output_tokens: Ints
    prefix_ids: Items[Items[int]] | None = None
    prefix_block: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrival", np.asarray(self.arrival, dtype=np.float64))
        for name in ("input_tokens", "output_tokens"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        size = len(self.arrival)
        if size == 0:
            raise InvalidValue("the trace is empty; give it at least one request")
        for name in ("input_tokens", "output_tokens", "prefix_ids"):
            value = getattr(self, name)
            if value is not None and len(value) != size:
                raise InvalidValue(f"{name} has {len(value)} entries for {size} arrivals")
        if not np.isfinite(self.arrival).all():
            raise InvalidValue("an arrival is not a finite number of seconds")
        if (back := np.flatnonzero(np.diff(self.arrival) < 0)).size:
            i = int(back[0]) + 1
            raise InvalidValue(
                f"the trace is not sorted: request {i} arrives at {self.arrival[i]} s, after one at {self.arrival[i - 1]} s"
            )
        for name in ("input_tokens", "output_tokens"):
            if (low := np.flatnonzero(getattr(self, name) < 1)).size:
                raise InvalidValue(f"request {low[0]} has {getattr(self, name)[low[0]]} {name}; it needs at least 1")
        if self.prefix_ids is not None:
            for i, ids in enumerate(self.prefix_ids):
                if len(ids) != -(-int(self.input_tokens[i]) // self.prefix_block):
                    raise InvalidValue(
                        f"request {i} has {len(ids)} prefix ids for {self.input_tokens[i]} input tokens; it needs one for "
                        f"each {self.prefix_block} tokens, the last one perhaps partial"
                    )

    def __len__(self) -> int:
        return len(self.arrival)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedAnswers:
    """The results of simulating a trace: one entry per request, times in seconds on the trace's clock. All are modelled.

    `scheduled` is when its first step started; `steps` and `busy_s` are the engine's steps and the time it spent in them.
    """

    trace: Trace
    scheduled: Floats
    first_token: Floats
    done: Floats
    cached_tokens: Ints
    preemptions: Ints
    steps: int
    busy_s: float

    @property
    def queue(self) -> Floats:
        """Time from the arrival to the start of the first step, s; it includes the way to the engine."""
        return self.scheduled - self.trace.arrival

    @property
    def ttft(self) -> Floats:
        """Time to first token, s."""
        return self.first_token - self.trace.arrival

    @property
    def e2e(self) -> Floats:
        """End to end, s."""
        return self.done - self.trace.arrival

    @property
    def tpot(self) -> Floats:
        """Time per output token after the first, s; nan for a request of one token, where it is undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            rest = self.trace.output_tokens - 1
            return np.where(rest > 0, (self.done - self.first_token) / rest, np.nan)

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens per second between the first arrival and the last token."""
        return float(self.trace.output_tokens.sum() / (self.done.max() - self.trace.arrival[0]))
