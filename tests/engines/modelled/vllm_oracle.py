"""vLLM's own KVCacheManager and Scheduler, driven in this process without an engine: what the modelled ones must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.engines.modelled.settings import EngineSettings


@dataclass(frozen=True)
class Job:
    """A request of a random workload; it arrives before step `at`, and before step `gone`, if any, it is cancelled."""

    prompt: tuple[int, ...]
    output_tokens: int
    at: int = 0
    priority: int = 0
    salt: str = ""
    gone: int | None = None


@dataclass
class Observed:
    """What a scheduler did: per step (id, new tokens, context) and preempted ids, and per request its cached tokens."""

    steps: list[tuple[tuple[tuple[str, int, int], ...], tuple[str, ...]]] = field(default_factory=list)
    free_blocks: list[int] = field(default_factory=list)
    cached: dict[str, int] = field(default_factory=dict)


def make_scheduler(settings: EngineSettings, model: Path) -> Any:
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    model_config = ModelConfig(model=str(model), dtype="float32", seed=1, max_model_len=settings.context_window)
    scheduler_config = SchedulerConfig(
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.context_window,
        enable_chunked_prefill=settings.enable_chunked_prefill,
        long_prefill_token_threshold=settings.long_prefill_token_threshold,
        policy=settings.policy,
        is_encoder_decoder=False,
        async_scheduling=False,
    )
    cache_config = CacheConfig(block_size=settings.block_size, enable_prefix_caching=settings.enable_prefix_caching)
    cache_config.num_gpu_blocks = settings.num_blocks
    config = VllmConfig(model_config=model_config, scheduler_config=scheduler_config, cache_config=cache_config)
    # What the platform's own checks may have changed, since small blocks are not for its kernels:
    config.cache_config.block_size = settings.block_size
    config.scheduler_config.async_scheduling = False
    spec = FullAttentionSpec(block_size=settings.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    kv_cache_config = KVCacheConfig(
        num_blocks=settings.num_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=kv_cache_config,
        structured_output_manager=StructuredOutputManager(config),
        block_size=settings.block_size,
        log_stats=True,
    )


def make_request(id: str, job: Job, block_size: int, arrival: float) -> Any:
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    return Request(
        request_id=id,
        prompt_token_ids=list(job.prompt),
        sampling_params=SamplingParams(max_tokens=job.output_tokens, ignore_eos=True),
        pooling_params=None,
        arrival_time=arrival,
        priority=job.priority,
        cache_salt=job.salt or None,
        block_hasher=get_request_block_hasher(block_size, sha256),
    )


def run_vllm(scheduler: Any, jobs: list[Job], block_size: int) -> Observed:
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import RequestStatus

    seen = Observed()
    pending = sorted(enumerate(jobs), key=lambda pair: pair[1].at)
    requests = {}
    token = 1_000_000
    turn = 0
    while pending or scheduler.has_unfinished_requests():
        while pending and pending[0][1].at <= turn:
            number, job = pending.pop(0)
            id = f"r{number:03}"
            requests[id] = make_request(id, job, block_size, float(job.at))
            scheduler.add_request(requests[id])
        for id, request in requests.items():
            if jobs[int(id[1:])].gone == turn and not request.is_finished():
                scheduler.finish_requests(id, RequestStatus.FINISHED_ABORTED)
        turn += 1
        before = {id: request.num_preemptions for id, request in requests.items()}
        output = scheduler.schedule()
        preempted = tuple(sorted(id for id, r in requests.items() if r.num_preemptions > before[id]))
        ids = list(output.num_scheduled_tokens)
        shares, sampled = [], []
        for id, new in output.num_scheduled_tokens.items():
            request = requests[id]
            shares.append((id, new, request.num_computed_tokens - new))
            token += 1
            sampled.append([token] if request.num_computed_tokens == request.num_tokens else [])
        for id, request in requests.items():
            seen.cached.setdefault(id, 0)
            if id in output.num_scheduled_tokens and request.prefill_stats is not None:  # None once it has been reported
                seen.cached[id] = request.prefill_stats.num_cached_tokens
        seen.free_blocks.append(scheduler.kv_cache_manager.block_pool.get_num_free_blocks())
        scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={id: i for i, id in enumerate(ids)},
                sampled_token_ids=sampled,
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[],
            ),
        )
        seen.steps.append((tuple(shares), preempted))
    return seen
