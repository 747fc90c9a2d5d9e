"""The modelled engine's counters, in the same snapshot as the metrics of live vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.modelled.scheduler import Scheduler
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings


@dataclass(slots=True)
class Counters:
    """Tokens and events since the engine's start."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generation_tokens: int = 0
    requests_finished: int = 0
    preemptions: int = 0

    def count_token(self, sequence: Sequence) -> None:
        """Count a token just written. As in vLLM, the prompt is counted with its first output token."""
        self.generation_tokens += 1
        if sequence.generated == 1:
            self.prompt_tokens += len(sequence.prompt)
            self.cached_prompt_tokens += sequence.cached_tokens
        if sequence.finished:
            self.requests_finished += 1

    def snapshot(self, scheduler: Scheduler, settings: EngineSettings) -> MetricsSnapshot:
        """The counters and the scheduler's state now."""
        return MetricsSnapshot(
            kv_cache_usage=scheduler.blocks.usage,
            requests_running=scheduler.num_running,
            requests_waiting=scheduler.num_waiting,
            prompt_tokens=self.prompt_tokens,
            cached_prompt_tokens=self.cached_prompt_tokens,
            generation_tokens=self.generation_tokens,
            requests_finished=self.requests_finished,
            prefix_cache_queries=self.prompt_tokens,
            prefix_cache_hits=self.cached_prompt_tokens,
            preemptions=self.preemptions,
            draft_rounds=None,
            draft_tokens=None,
            accepted_tokens=None,
            time_to_first_token=None,
            inter_token_latency=None,
            time_per_output_token=None,
            e2e_latency=None,
            queue_time=None,
            prefill_time=None,
            decode_time=None,
            inference_time=None,
            iteration_tokens=None,
            kv_caches=({"num_gpu_blocks": str(settings.num_blocks), "block_size": str(settings.block_size)},),
            process_started=None,
            samples={},
        )
