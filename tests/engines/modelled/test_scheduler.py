from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.engines.modelled.scheduler import ContinuousBatching
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings
from labkit.request import ContextWindowExceeded

from .vllm_oracle import Job, Observed, make_scheduler, run_vllm


def run_ours(engine: EngineSettings, jobs: list[Job]) -> Observed:
    scheduler = ContinuousBatching(engine)
    seen = Observed()
    pending = sorted(enumerate(jobs), key=lambda pair: pair[1].at)
    sequences: dict[str, Sequence] = {}
    turn = 0
    while pending or scheduler.num_running or scheduler.num_waiting:
        while pending and pending[0][1].at <= turn:
            number, job = pending.pop(0)
            id = f"r{number:03}"
            sequences[id] = Sequence(id, job.prompt, job.output_tokens, float(job.at), job.priority, job.salt)
            scheduler.add(sequences[id])
        for id, sequence in sequences.items():
            if jobs[int(id[1:])].gone == turn:
                scheduler.remove(sequence)
        turn += 1
        step = scheduler.schedule(float(turn))
        seen.free_blocks.append(scheduler.blocks.num_free)
        if step is None:
            seen.steps.append(((), ()))
            continue
        seen.steps.append(
            (tuple((share.id, share.new, share.context) for share in step.scheduled), tuple(sorted(step.preempted)))
        )
        scheduler.complete(step)
    seen.cached = {id: sequence.cached_tokens for id, sequence in sequences.items()}
    return seen


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineSettings, list[Job]]:
    block_size = draw(st.sampled_from([2, 4, 8]))
    max_num_seqs = draw(st.integers(1, 6))
    chunked = draw(st.booleans())
    usable = draw(st.integers(4, 24))
    batched = draw(st.integers(max_num_seqs, 24)) if chunked else draw(st.integers(16, 64))
    engine = EngineSettings(
        num_blocks=usable + 1,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=batched,
        enable_prefix_caching=draw(st.booleans()),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 5])) if chunked else 0,
        policy=draw(st.sampled_from(["fcfs", "priority"])),
    )
    stem = tuple(range(100, 140))
    longest = min(engine.context_window, 60)
    jobs = []
    for number in range(draw(st.integers(1, 10))):
        total = draw(st.integers(2, longest))
        prompt = draw(st.integers(1, total - 1))
        shared = draw(st.integers(0, prompt))
        own = tuple(1000 * (number + 1) + i for i in range(prompt))
        at = draw(st.integers(0, 12))
        jobs.append(
            Job(
                prompt=(stem[:shared] + own)[:prompt],
                output_tokens=total - prompt,
                at=at,
                priority=draw(st.integers(0, 2)),
                salt=draw(st.sampled_from(["", "", "team"])),
                gone=draw(st.sampled_from([None, None, None, at + 1, at + 3, at + 8])),
            )
        )
    return engine, jobs


@pytest.fixture(scope="module")
def small_model() -> Path:
    pytest.importorskip("vllm")
    from labkit.lab.models import model_path

    return Path(model_path("small"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workload=workloads())
def test_every_step_holds_what_vllms_own_scheduler_puts_into_it(
    workload: tuple[EngineSettings, list[Job]], small_model: Path
):
    engine, jobs = workload
    theirs = run_vllm(make_scheduler(engine, small_model), jobs, engine.block_size)
    ours = run_ours(engine, jobs)
    assert ours.steps == theirs.steps
    assert ours.free_blocks == theirs.free_blocks
    assert ours.cached == theirs.cached


def test_a_request_that_could_never_fit_is_refused_with_the_numbers():
    scheduler = ContinuousBatching(EngineSettings(num_blocks=5, block_size=4))
    with pytest.raises(ContextWindowExceeded, match=r"12 prompt tokens and up to 5 output tokens exceed .* 16"):
        scheduler.add(Sequence("r", tuple(range(12)), 5))
