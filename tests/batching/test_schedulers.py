from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import Job, Limits, StepPlan, chunked_prefill, continuous, dynamic, run_schedule, static
from labkit.engines.modelled import ContinuousBatching, EngineSettings, Sequence
from labkit.request import InvalidValue

POLICIES = {"static": static, "dynamic": dynamic(2.0), "continuous": continuous, "chunked": chunked_prefill}


def second(prefill, decode):
    return 1.0


def affine(prefill, decode):
    return 0.5 + 0.1 * prefill + 0.05 * decode


JOBS = st.lists(
    st.builds(Job, st.sampled_from([0.0, 0.0, 0.5, 3.0, 40.0]) | st.floats(0, 30), st.integers(1, 12), st.integers(1, 8)),
    min_size=1,
    max_size=14,
)
LIMITS = st.builds(Limits, st.integers(1, 6), st.integers(12, 30))
STEP = st.sampled_from([second, affine, lambda p, d: 0.2 + p * p / 50 + d / 9])


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_one_request_alone_takes_a_step_for_its_prompt_and_one_for_each_further_token(policy):
    schedule = run_schedule([Job(3.0, 5, 4)], policy, Limits(2, 16), affine)
    prefill, decode = 0.5 + 0.5, 0.5 + 0.05
    assert schedule.served[0].first_token == pytest.approx(3 + prefill)
    assert schedule.served[0].finish == schedule.finish == pytest.approx(3 + prefill + 3 * decode)
    assert [step.tokens for step in schedule.steps] == [{0: 5}, {0: 1}, {0: 1}, {0: 1}]


def test_a_static_batch_waits_to_be_full_and_keeps_its_seats_to_the_end():
    jobs = [Job(0, 2, 1), Job(4, 2, 5), Job(4.5, 2, 1), Job(5, 2, 1)]
    schedule = run_schedule(jobs, static, Limits(2, 16), second)
    assert [(step.at, dict(step.tokens)) for step in schedule.steps] == [
        (4, {0: 2, 1: 2}),
        (5, {1: 1}),  # the seat of job 0 stays empty, though 2 and 3 wait
        (6, {1: 1}),
        (7, {1: 1}),
        (8, {1: 1}),
        (9, {2: 2, 3: 2}),
    ]


def test_a_dynamic_batch_waits_only_so_long():
    jobs = [Job(0, 2, 1), Job(1, 2, 1), Job(10, 2, 1), Job(10.5, 2, 1)]
    schedule = run_schedule(jobs, dynamic(3), Limits(3, 16), second)
    assert [(step.at, set(step.tokens)) for step in schedule.steps] == [(3, {0, 1}), (10.5, {2, 3})], "no more will come"
    assert [set(step.tokens) for step in run_schedule(jobs, dynamic(0), Limits(3, 16), second).steps] == [{0}, {1}, {2}, {3}]


def test_continuous_batching_fills_a_seat_in_the_step_after_it_is_free():
    jobs = [Job(0, 2, 1), Job(0, 2, 5), Job(0, 2, 2)]
    schedule = run_schedule(jobs, continuous, Limits(2, 16), second)
    assert [dict(step.tokens) for step in schedule.steps] == [{0: 2, 1: 2}, {1: 1, 2: 2}, {1: 1, 2: 1}, {1: 1}, {1: 1}]
    assert [served.finish for served in schedule.served] == [1, 5, 3]


def test_a_long_prompt_stalls_the_others_unless_it_is_cut():
    jobs = [Job(0, 1, 10), Job(1.0, 9, 1)]
    whole = run_schedule(jobs, continuous, Limits(2, 10), affine)
    cut = run_schedule(jobs, chunked_prefill, Limits(2, 4), affine)
    assert max(step.seconds for step in whole.steps) == pytest.approx(0.5 + 0.9 + 0.05)
    assert max(step.seconds for step in cut.steps) == pytest.approx(0.5 + 0.3 + 0.05)
    assert [step.tokens[1] for step in cut.steps if 1 in step.tokens] == [3, 3, 3]


@settings(max_examples=200)
@given(JOBS, LIMITS, STEP, st.sampled_from(list(POLICIES)))
def test_every_token_is_computed_once_within_the_limits_and_nothing_before_it_came(jobs, limits, step_seconds, policy):
    schedule = run_schedule(jobs, POLICIES[policy], limits, step_seconds)
    fed = Counter()
    clock = 0.0
    started, ended = {}, {}
    for step in schedule.steps:
        assert step.at >= clock
        clock = step.end
        prefill = sum(new for job, new in step.tokens.items() if fed[job] < jobs[job].prompt)
        decode = sum(new for job, new in step.tokens.items() if fed[job] >= jobs[job].prompt)
        assert step.seconds == step_seconds(prefill, decode)
        assert prefill + decode <= limits.token_budget
        for job, new in step.tokens.items():
            assert step.at >= jobs[job].arrival
            started.setdefault(job, step.at)
            before, fed[job] = fed[job], fed[job] + new
            assert fed[job] <= jobs[job].prompt or new == 1
            if before < jobs[job].prompt <= fed[job]:
                assert schedule.served[job].first_token == step.end
            if fed[job] == jobs[job].prompt + jobs[job].output - 1:
                assert schedule.served[job].finish == step.end
                ended[job] = step.end
    assert fed == {i: job.prompt + job.output - 1 for i, job in enumerate(jobs)}
    for step in schedule.steps:
        seated = sum(started[i] <= step.at < ended[i] for i in range(len(jobs)))
        assert seated <= limits.max_sequences
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].arrival)
    assert sorted(order, key=lambda i: started[i]) == order, "first come, first served"


@settings(max_examples=150)
@given(JOBS, st.builds(Limits, st.integers(1, 6), st.integers(20, 30)), STEP, st.booleans())
def test_the_steps_are_those_of_vllms_scheduler_with_memory_enough(jobs, limits, step_seconds, cut):
    # budgets from 20: without chunks vLLM wants room for prompt and answer in one step, in case it must preempt
    jobs = sorted(jobs, key=lambda job: job.arrival)
    engine = ContinuousBatching(
        EngineSettings(
            num_blocks=10_000,
            max_num_seqs=limits.max_sequences,
            max_num_batched_tokens=limits.token_budget,
            enable_prefix_caching=False,
            enable_chunked_prefill=cut,
        )
    )
    steps, now, come = [], 0.0, 0
    while come < len(jobs) or engine.num_running or engine.num_waiting:
        while come < len(jobs) and jobs[come].arrival <= now:
            engine.add(Sequence(str(come), [1] * jobs[come].prompt, jobs[come].output, jobs[come].arrival))
            come += 1
        step = engine.schedule(now)
        if step is None:
            now = jobs[come].arrival
            continue
        prefill = sum(share.new for share in step.scheduled if share.context < jobs[int(share.id)].prompt)
        decode = sum(share.new for share in step.scheduled if share.context >= jobs[int(share.id)].prompt)
        steps.append((now, {int(share.id): share.new for share in step.scheduled}))
        now += step_seconds(prefill, decode)
        engine.complete(step)
    ours = run_schedule(jobs, chunked_prefill if cut else continuous, limits, step_seconds)
    assert [(step.at, dict(step.tokens)) for step in ours.steps] == steps


@settings(max_examples=150)
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 8),
    LIMITS,
    st.sampled_from([second, affine]),
    st.sampled_from([continuous, chunked_prefill, dynamic(0.0)]),
)
def test_for_equal_requests_that_come_together_static_is_never_done_earlier(count, prompt, output, limits, seconds, policy):
    jobs = [Job(0.0, prompt, output)] * count
    assert run_schedule(jobs, policy, limits, seconds).finish <= run_schedule(jobs, static, limits, seconds).finish + 1e-9


@settings(max_examples=100)
@given(JOBS, st.integers(1, 6))
def test_with_steps_of_one_length_and_room_for_all_prompts_continuous_ends_no_request_a_step_later_than_static(jobs, seats):
    limits = Limits(seats, 1000)
    slow, fast = (run_schedule(jobs, policy, limits, second) for policy in (static, continuous))
    assert len(fast.served) == len(slow.served) == len(jobs)
    for i in range(len(jobs)):
        assert fast.served[i].finish <= slow.served[i].finish + 1 + 1e-9  # a newcomer may have to wait for a step to end


def test_uneven_answers_cost_a_static_batch_its_seats():
    jobs = [Job(0.0, 1, output) for output in (1, 9, 1, 9, 1, 9, 1, 9)]
    limits = Limits(2, 8)
    assert run_schedule(jobs, static, limits, second).finish == 4 * 9
    # 40 tokens of work on two seats take 20 steps at least; here the last answer leaves one seat empty
    assert run_schedule(jobs, continuous, limits, second).finish == 21


def test_no_jobs_take_no_time():
    assert run_schedule([], continuous, Limits(1, 1), second).finish == 0


def test_what_cannot_be_scheduled_is_refused_with_the_reason():
    long = [Job(0, 9, 1)]
    for policy in (static, dynamic(1), continuous):
        with pytest.raises(InvalidValue, match="token budget of 8"):
            run_schedule(long, policy, Limits(2, 8), second)
    assert run_schedule(long, chunked_prefill, Limits(2, 8), second).finish == 2
    with pytest.raises(InvalidValue, match="takes 0 s"):
        run_schedule(long, continuous, Limits(2, 10), lambda p, d: 0)
    greedy = [lambda view: StepPlan({0: 10}), lambda view: StepPlan({1: 1}), lambda view: StepPlan({0: 0})]
    for policy in greedy:
        with pytest.raises(InvalidValue, match="which has 9 to take"):
            run_schedule([*long, Job(5, 9, 1)], policy, Limits(2, 20), second)
    with pytest.raises(InvalidValue, match="allows less"):
        run_schedule(long * 2, lambda view: StepPlan({0: 9, 1: 9}), Limits(2, 10), second)
    with pytest.raises(InvalidValue, match="allows less"):
        run_schedule(long * 2, lambda view: StepPlan({0: 9, 1: 9}), Limits(1, 20), second)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Job(-1, 1, 1),
        lambda: Job(0, 0, 1),
        lambda: Job(0, 1, 0),
        lambda: Limits(0, 1),
        lambda: Limits(3, 2),
        lambda: dynamic(-1),
    ],
)
def test_values_that_cannot_be_are_refused(make):
    with pytest.raises(InvalidValue):
        make()
