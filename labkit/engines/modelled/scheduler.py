"""Decides what the next step holds: which sequences, and how many tokens of each.

A policy is an object with four methods (`Scheduler`) over one step loop: `add` a sequence, `schedule` the next step,
`complete` it when its time has passed, `remove` a sequence that nobody waits for any more. The loop around it (engine.py)
works with any policy, and the log of steps can draw any of them.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from labkit.engines.modelled.blocks import BlockManager
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings
from labkit.latency import StepWork


class Share(NamedTuple):
    """What one sequence gets in a step: `new` tokens computed, after `context` tokens that its KV cache holds.

    `entering` is True in the step that takes the sequence from the waiting queue into the batch.
    """

    id: str
    new: int
    context: int
    entering: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its number from 0, its start in seconds, the sequences in it, and those that were preempted for it.

    A step may hold nothing but preemptions: a sequence that finds no block, even by preempting others, waits again.
    """

    index: int
    start: float
    scheduled: tuple[Share, ...]
    preempted: tuple[str, ...] = ()

    @property
    def work(self) -> StepWork:
        """The work of the step, as the latency model takes it."""
        return StepWork.of(
            ((share.new, share.context) for share in self.scheduled), sum(share.entering for share in self.scheduled)
        )


class Scheduler(Protocol):
    """A policy over the step loop."""

    blocks: BlockManager

    @property
    def num_running(self) -> int:
        """Sequences that hold a place in the batch."""

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a place in the batch."""

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""

    def schedule(self, now: float) -> Step | None:
        """The step that starts now; None when nothing can be computed."""

    def complete(self, step: Step) -> list[Sequence]:
        """End the step: each returned sequence wrote one token in it, and the finished ones have left."""

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence between two steps, and free its blocks."""


@dataclass(slots=True)
class ContinuousBatching:
    """vLLM V1's scheduler (vllm/v1/core/sched/scheduler.py): running sequences first, then waiting ones, up to a budget.

    Prefill and decode are treated alike: each sequence needs some tokens computed, and gets as many as the budget leaves.
    A running sequence that finds no block preempts the sequence that came last (or has the lowest priority). The preempted
    sequence later computes all its tokens again, except those that it finds in the prefix cache.
    """

    settings: EngineSettings
    blocks: BlockManager = field(init=False)
    running: list[Sequence] = field(init=False, default_factory=list)
    waiting: WaitingQueue = field(init=False)
    _sequences: dict[str, Sequence] = field(init=False, default_factory=dict)
    _steps: int = field(init=False, default=0)
    _written: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        s = self.settings
        self.blocks = BlockManager(s.num_blocks, s.block_size, s.enable_prefix_caching)
        self.waiting = WaitingQueue(by_priority=s.policy == "priority")

    @property
    def num_running(self) -> int:
        """Sequences in the batch."""
        return len(self.running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait, preempted ones included."""
        return len(self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises `ContextWindowExceeded` for one that the engine can never hold."""
        self.settings.check_fits(len(sequence.prompt), sequence.output_tokens)
        self._sequences[sequence.id] = sequence
        self.waiting.push(sequence)

    def schedule(self, now: float) -> Step | None:
        """The step that starts now."""
        # The cap keeps a long prefill from starving other sequences; a sequence that is alone needs no cap.
        crowded = len(self.running) + len(self.waiting) > 1
        cap = (self.settings.long_prefill_token_threshold if crowded else 0) or self.settings.max_num_batched_tokens
        shares: dict[str, Share] = {}
        preempted: list[str] = []
        budget = self._schedule_running(shares, preempted, cap)
        if not preempted:  # newcomers must not take a preempted sequence's blocks in the same step
            self._schedule_waiting(shares, cap, budget)
        if not shares and not preempted:
            return None
        for share in shares.values():
            self._sequences[share.id].computed += share.new
        step = Step(self._steps, now, tuple(shares.values()), tuple(preempted))
        self._steps += 1
        return step

    def complete(self, step: Step) -> list[Sequence]:
        """End the step."""
        wrote = []
        for share in step.scheduled:
            sequence = self._sequences.get(share.id)
            if sequence is None or sequence.remaining:  # removed meanwhile, or a chunk of a longer prefill
                continue
            self._written += 1
            sequence.tokens.append(-self._written)  # an id of its own, below 0: no prompt holds it
            wrote.append(sequence)
            if sequence.finished:
                self.blocks.free(sequence)
                del self._sequences[sequence.id]
        if any(sequence.finished for sequence in wrote):
            self.running = [sequence for sequence in self.running if not sequence.finished]
        return wrote

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free its blocks; a sequence that is not here any more is no error."""
        if self._sequences.pop(sequence.id, None) is None:
            return
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.blocks.free(sequence)

    def _schedule_running(self, shares: dict[str, Share], preempted: list[str], cap: int) -> int:
        budget = self.settings.max_num_batched_tokens
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            new = min(sequence.remaining, cap, budget)
            while not self.blocks.can_allocate(sequence, sequence.computed + new):
                victim = self._victim()
                at = self.running.index(victim)
                del self.running[at]
                index -= at < index
                if victim.id in shares:  # only with priorities: the victim may have its share already
                    budget += shares.pop(victim.id).new
                self._preempt(victim)
                preempted.append(victim.id)
                if victim is sequence:
                    return budget
            self.blocks.allocate(sequence, sequence.computed + new)
            shares[sequence.id] = Share(sequence.id, new, sequence.computed)
            budget -= new
            index += 1
        return budget

    def _schedule_waiting(self, shares: dict[str, Share], cap: int, budget: int) -> None:
        while budget > 0 and self.waiting and len(self.running) < self.settings.max_num_seqs:
            sequence = self.waiting.first
            prefix = self.blocks.cached_prefix(sequence)
            hit = len(prefix) * self.blocks.block_size
            new = min(len(sequence.tokens) - hit, cap)
            if new > budget and not self.settings.enable_chunked_prefill:
                return
            new = min(new, budget)
            # Admitted only if blocks for all its tokens are free now, not just for this chunk. They are not reserved.
            if not self.blocks.can_allocate(sequence, len(sequence.tokens), prefix):
                return
            self.blocks.allocate(sequence, hit + new, prefix)
            self.waiting.pop()
            self.running.append(sequence)
            sequence.computed = hit
            if not sequence.preemptions:
                sequence.cached_tokens = hit
            shares[sequence.id] = Share(sequence.id, new, hit, entering=True)
            budget -= new

    def _victim(self) -> Sequence:
        if self.settings.policy == "priority":
            return max(self.running, key=lambda sequence: (sequence.priority, sequence.arrival))
        return self.running[-1]

    def _preempt(self, sequence: Sequence) -> None:
        self.blocks.free(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.waiting.push_front(sequence)


class WaitingQueue:
    """The waiting sequences in the order of serving: first come first served, or by (priority, arrival, id)."""

    def __init__(self, by_priority: bool) -> None:
        self._by_priority = by_priority
        self._queue: deque[Sequence] = deque()
        self._heap: list[tuple[int, float, str, Sequence]] = []

    def __len__(self) -> int:
        return len(self._heap) if self._by_priority else len(self._queue)

    @property
    def first(self) -> Sequence:
        """The sequence that is served next."""
        return self._heap[0][-1] if self._by_priority else self._queue[0]

    def push(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        if self._by_priority:
            heapq.heappush(self._heap, (sequence.priority, sequence.arrival, sequence.id, sequence))
        else:
            self._queue.append(sequence)

    def push_front(self, sequence: Sequence) -> None:
        """Queue a preempted sequence: in front, or at the place of its priority."""
        if self._by_priority:
            self.push(sequence)
        else:
            self._queue.appendleft(sequence)

    def pop(self) -> Sequence:
        """Take the next sequence out."""
        return heapq.heappop(self._heap)[-1] if self._by_priority else self._queue.popleft()

    def remove(self, sequence: Sequence) -> None:
        """Take `sequence` out, wherever it stands."""
        if self._by_priority:
            self._heap = [entry for entry in self._heap if entry[-1] is not sequence]
            heapq.heapify(self._heap)
        else:
            self._queue.remove(sequence)
