from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.engines.modelled import EngineSettings, ModelledEngine, Step, Trace, simulate, simulate_closed
from labkit.latency import LatencyModel, StepWork
from labkit.latency.fitting import volley_seconds
from labkit.load import closed_loop
from labkit.request import Completion, ContextWindowExceeded, InvalidValue, Request, complete
from labkit.request.clock import run_virtual

PREFIX_BLOCK = 8
# Odd constants, so that no step ends exactly when a request arrives.
MODEL = LatencyModel(
    0.0100357,
    0.00071,
    0.000313,
    0.00207,
    1.13e-6,
    1.7e-5,
    0.00311,
    1.9e-5,
    frontend_s=0.00427,
    admit_s=0.0013,
    crowd_s=0.00191,
)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineSettings, Trace]:
    seqs = draw(st.integers(1, 5))
    chunked = draw(st.booleans())
    engine = EngineSettings(
        num_blocks=draw(st.integers(8, 30)),
        block_size=draw(st.sampled_from([2, 4, 8])),
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs, 32)) if chunked else draw(st.integers(20, 64)),
        enable_prefix_caching=draw(st.booleans()),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 6])) if chunked else 0,
    )
    longest = min(engine.context_window, 60)
    lengths = draw(
        st.lists(
            st.integers(2, longest).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), min_size=1, max_size=12
        )
    )
    inputs = [prompt for _, prompt in lengths]
    ids = None
    if draw(st.booleans()):
        ids = [draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in (-(-i // PREFIX_BLOCK) for i in inputs)]
    arrival = np.sort([draw(st.integers(0, 30)) / 100 for _ in lengths])
    return engine, Trace(arrival, np.array(inputs), np.array([n - p for n, p in lengths]), ids, PREFIX_BLOCK)


def tokens_of(trace: Trace, i: int) -> list[int]:
    size = int(trace.input_tokens[i])
    if trace.prefix_ids is None:
        return [10_000 * (i + 1) + n for n in range(size)]
    return [trace.prefix_ids[i][n // PREFIX_BLOCK] * PREFIX_BLOCK + n % PREFIX_BLOCK for n in range(size)]


def through_the_handler(trace: Trace, engine: EngineSettings) -> tuple[list[Completion], list[Step], float]:
    steps: list[Step] = []

    async def main() -> tuple[list[Completion], float]:
        handler = ModelledEngine(MODEL, engine, on_step=steps.append)
        loop = asyncio.get_running_loop()
        tasks = []
        for i in range(len(trace)):
            arrived = asyncio.Event()
            loop.call_at(float(trace.arrival[i]), arrived.set)
            await arrived.wait()
            extra = {"prompt_token_ids": tokens_of(trace, i)}
            request = Request("x", max_tokens=int(trace.output_tokens[i]), extra=extra)
            tasks.append(loop.create_task(complete(handler, request)))
        answers = await asyncio.gather(*tasks)
        preemptions = (await handler.metrics()).preemptions
        assert preemptions is not None
        return answers, preemptions

    answers, preemptions = run_virtual(main())
    return answers, steps, preemptions


@settings(max_examples=200, deadline=None)
@given(workload=workloads())
def test_the_compiled_path_does_event_for_event_what_the_handler_does(workload: tuple[EngineSettings, Trace]):
    engine, trace = workload
    outcome = simulate(trace, MODEL, engine)
    answers, steps, preemptions = through_the_handler(trace, engine)
    assert outcome.first_token == pytest.approx([a.done.timing.first_token for a in answers], abs=1e-7)
    assert outcome.done == pytest.approx([a.done.timing.done for a in answers], abs=1e-7)
    assert outcome.cached_tokens.tolist() == [a.done.usage.cached_tokens for a in answers]
    assert outcome.preemptions.sum() == preemptions
    assert outcome.steps == len(steps)


@settings(max_examples=100, deadline=None)
@given(workload=workloads(), people=st.integers(1, 6))
def test_the_compiled_closed_loop_does_what_the_load_generator_does_to_the_handler(
    workload: tuple[EngineSettings, Trace], people: int
):
    engine, trace = workload
    model = replace(MODEL, crowd_s=0.0)  # answers that end in one step end in some order, on which only the crowd depends
    outcome = simulate_closed(trace.input_tokens, trace.output_tokens, people, model, engine)
    plain = Trace(np.zeros(len(trace)), trace.input_tokens, trace.output_tokens)
    requests = [
        Request("x", max_tokens=int(plain.output_tokens[i]), extra={"prompt_token_ids": tokens_of(plain, i)})
        for i in range(len(plain))
    ]
    run = run_virtual(closed_loop(ModelledEngine(model, engine), requests, people))
    assert np.sort(outcome.trace.arrival) == pytest.approx([s.due - run.begin for s in run.samples], abs=1e-7)
    assert np.sort(outcome.ttft) == pytest.approx(sorted(s.ttft_from_due for s in run.samples), abs=1e-7)
    assert outcome.done.max() == pytest.approx(run.end - run.begin, abs=1e-7)


def test_a_closed_loop_of_nobody_is_refused():
    with pytest.raises(InvalidValue, match="people is 0; keep at least 1"):
        simulate_closed(np.array([9]), np.array([1]), 0, MODEL, EngineSettings(num_blocks=100))


def test_a_lone_request_takes_its_steps_and_nothing_else():
    settings_ = EngineSettings(num_blocks=100, max_num_batched_tokens=256)
    outcome = simulate(Trace([2.0], [100], [3]), LatencyModel(0.01, 0, 0, 0, 0, 0, request_s=0.5), settings_)
    assert outcome.scheduled == pytest.approx([2.5])
    assert outcome.ttft == pytest.approx([0.51])
    assert outcome.tpot == pytest.approx([0.01])
    assert outcome.e2e == pytest.approx([0.53])
    assert (outcome.steps, outcome.busy_s) == (3, pytest.approx(0.03))
    assert outcome.output_tokens_per_s == pytest.approx(3 / 0.53)


def test_a_front_end_serves_one_after_another_and_a_late_comer_at_once():
    engine = EngineSettings(num_blocks=100, max_num_batched_tokens=256)
    model = LatencyModel(0.01, 0, 0, 0, 0, 0, request_s=0.001, frontend_s=0.1)
    outcome = simulate(Trace([0.0, 0.0, 0.0, 0.31], [9] * 4, [1] * 4), model, engine)
    assert outcome.ttft == pytest.approx([0.111, 0.211, 0.311, 0.111])


def test_a_way_through_a_crowd_is_longer_until_the_crowd_has_gone():
    engine = EngineSettings(num_blocks=100, max_num_batched_tokens=256)
    model = LatencyModel(0.01, 0, 0, 0, 0, 0, request_s=0.001, crowd_s=0.1)
    outcome = simulate(Trace([0.0, 0.053, 5.0], [9] * 3, [50, 1, 1]), model, engine)
    # The second is through at 154 ms, in the middle of the first one's step that ends at 161; the third meets nobody.
    assert outcome.ttft == pytest.approx([0.011, 0.161 + 0.01 - 0.053, 0.011])


@pytest.mark.parametrize("people", [1, 2, 5, 17])
@pytest.mark.parametrize("step", [0.0005, 0.004, 0.03])
def test_a_volley_ends_when_the_formula_for_it_says(people: int, step: float):
    model = LatencyModel(step, 2e-4, 1.5e-5, 3e-4, 2e-9, 4e-8, 3e-3, 2e-6, 2.2e-3, 7e-4, 4e-4)
    nothing = np.zeros(people)
    outcome = simulate(Trace(nothing, nothing + 64, nothing + 1), model, EngineSettings(num_blocks=8000))
    # The formula lets fractions of a prompt in, so it may be up to one prompt's share of a step off.
    one = model.step_seconds(StepWork.of([(64, 0)] * 2, 2)) - model.step_seconds(StepWork.of([(64, 0)], 1))
    assert volley_seconds(model, people, 64) == pytest.approx(outcome.done.max(), abs=2 * one + 1e-9)


def test_tpot_of_a_single_token_is_undefined():
    outcome = simulate(Trace([0.0], [5], [1]), MODEL, EngineSettings(num_blocks=10))
    assert np.isnan(outcome.tpot).all()


def test_sharing_a_beginning_saves_prefill_and_not_sharing_does_not():
    engine = EngineSettings(num_blocks=1000, block_size=16, max_num_batched_tokens=2048)
    lengths = dict(arrival=[0.0, 5.0], input_tokens=[1000, 1000], output_tokens=[5, 5], prefix_block=512)
    shared = simulate(Trace(**lengths, prefix_ids=[[1, 2], [1, 3]]), MODEL, engine)
    apart = simulate(Trace(**lengths), MODEL, engine)
    assert shared.cached_tokens.tolist() == [0, 512]
    assert apart.cached_tokens.tolist() == [0, 0]
    assert shared.ttft[1] < shared.ttft[0] == pytest.approx(apart.ttft[1])


@settings(max_examples=50, deadline=None)
@given(
    prompts=st.lists(
        st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 2), min_size=5, max_size=5))),
        min_size=1,
        max_size=15,
    )
)
def test_in_a_cache_that_never_fills_every_full_block_seen_before_is_a_hit(prompts: list[tuple[int, list[int]]]):
    ids = [blocks[: -(-n // 8)] for n, blocks in prompts]
    lengths = [n for n, _ in prompts]
    trace = Trace(np.arange(len(prompts)) * 100.0, np.array(lengths), np.ones(len(prompts)), ids, prefix_block=8)
    outcome = simulate(trace, MODEL, EngineSettings(num_blocks=1000, block_size=8))
    seen: set[tuple[int, ...]] = set()
    expected = []
    for length, blocks in zip(lengths, ids, strict=True):
        beginnings = [tuple(blocks[: i + 1]) for i in range(length // 8)]
        hits = sum(beginning in seen for beginning in beginnings[: (length - 1) // 8])  # beginnings are seen from the front
        expected.append(8 * hits)
        seen.update(beginnings)
    assert outcome.cached_tokens.tolist() == expected


GOOD = dict(arrival=[0.0, 1.0], input_tokens=[5, 5], output_tokens=[2, 2])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(arrival=[], input_tokens=[], output_tokens=[]), "the trace is empty"),
        (dict(arrival=[1.0, 0.5]), "not sorted: request 1 arrives at 0.5 s, after one at 1.0 s"),
        (dict(arrival=[0.0, float("nan")]), "finite"),
        (dict(input_tokens=[5]), "input_tokens has 1 entries for 2 arrivals"),
        (dict(output_tokens=[2, 0]), "request 1 has 0 output_tokens"),
        (dict(prefix_ids=[[1], [1, 2]]), "request 1 has 2 prefix ids for 5 input tokens"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_the_place(change: dict, says: str):
    with pytest.raises(InvalidValue, match=says):
        Trace(**{**GOOD, **change})


def test_what_the_compiled_path_cannot_do_it_refuses():
    engine = EngineSettings(num_blocks=10, block_size=16)
    with pytest.raises(InvalidValue, match="priorities"):
        simulate(Trace(**GOOD), MODEL, replace(engine, policy="priority"))
    with pytest.raises(InvalidValue, match=r"no multiple of the engine's block_size \(16\)"):
        simulate(Trace(**GOOD, prefix_ids=[[1], [1]], prefix_block=40), MODEL, engine)
    with pytest.raises(ContextWindowExceeded, match="150 prompt tokens"):
        simulate(Trace([0.0], [150], [2]), MODEL, engine)
