"""What is read from a step log: worked examples, brute force, the modelled scheduler against itself, and a live engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.engines import connect
from labkit.engines.host.scheduler import SCHEDULER
from labkit.engines.host.step_log import CONFIG_KEY, LoggedStep, read_step_log
from labkit.engines.modelled import EngineSettings
from labkit.kvcache import StepMemory, computed_twice, foretold, replayed, step_memory
from labkit.load import ExactLengths
from labkit.request import InvalidValue, complete

LOG = [
    LoggedStep((("a", 7, 0), ("b", 4, 0)), (), 6),
    LoggedStep((("a", 1, 7), ("b", 1, 4)), (), 5),
    LoggedStep((("a", 1, 8),), ("b",), 6),
    LoggedStep((("a", 1, 9), ("b", 2, 4)), (), 4),  # b finds one block of four again, and computes the fifth token again
]


def test_held_blocks_and_empty_slots_are_counted_from_tokens() -> None:
    first, second, third, last = step_memory(LOG, 10, 4)
    assert first == StepMemory(running=2, tokens=11, blocks=3, empty_slots=1, engine_blocks=3, preempted=0)
    assert second == StepMemory(2, 13, 4, 3, 4, 0)
    assert third == StepMemory(1, 9, 3, 3, 3, 1)
    assert (last.blocks, last.engine_blocks, last.empty_slots) == (5, 5, 4)


def test_a_token_is_computed_twice_where_a_preemption_took_it() -> None:
    assert computed_twice(LOG) == 1
    assert computed_twice([*LOG, LoggedStep((("b", 6, 0),), (), 8)]) == 1 + 6
    assert computed_twice([LoggedStep((("c", 5, 0),), (), 1), LoggedStep((("c", 3, 5),), (), 1)]) == 0, (
        "chunks are no repeats"
    )
    assert computed_twice([LoggedStep((("d", 3, 8),), (), 1)]) == 0, "what the cache served was not computed"


loads = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=14)
engines = st.builds(
    EngineSettings,
    num_blocks=st.integers(21, 60),
    block_size=st.just(4),
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(8, 64),
)


@settings(deadline=None)
@given(loads, st.integers(1, 9), engines)
def test_foretold_steps_do_the_work_and_no_more_than_preemptions_repeat(
    lengths: list[tuple[int, int]], clients: int, engine: EngineSettings
) -> None:
    steps = foretold(lengths, clients, engine)
    times = Counter(
        (id, place) for step in steps for id, new, context in step.tokens for place in range(context, context + new)
    )
    assert computed_twice(steps) == sum(count - 1 for count in times.values())
    for number, (prompt, output) in enumerate(lengths):
        assert {place for id, place in times if id == str(number)} == set(range(prompt + output - 1)), (
            "its last is not computed"
        )
    assert max(len({id for id, _, _ in step.tokens}) for step in steps) <= min(clients, engine.max_num_seqs)
    if not any(step.preempted for step in steps):
        assert computed_twice(steps) == 0
    for seen in step_memory(steps, engine.num_blocks, engine.block_size):
        assert seen.engine_blocks >= seen.blocks, "nothing is shared, so what a step's requests need is held"


@settings(deadline=None)
@given(loads, st.integers(1, 9), engines)
def test_a_log_is_replayed_from_first_appearances_alone(
    lengths: list[tuple[int, int]], clients: int, engine: EngineSettings
) -> None:
    steps = foretold(lengths, clients, engine)
    start = 0
    requests = {}
    for number, (prompt, output) in enumerate(lengths):
        requests[str(number)] = (range(start, start + prompt), output)
        start += prompt
    assert replayed(steps, requests, engine) == steps


def test_enough_memory_foretells_no_preemption_and_too_little_some() -> None:
    lengths = [(10, 40)] * 6
    roomy, tight = (foretold(lengths, 6, EngineSettings(blocks, 4)) for blocks in (100, 40))
    assert not any(step.preempted for step in roomy)
    assert len(roomy) == 40
    assert any(step.preempted for step in tight)
    assert len(tight) > 40


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidValue, match="1 blocks of 4"):
        step_memory(LOG, 1, 4)
    with pytest.raises(InvalidValue, match="not given: b; cut the log"):
        replayed(LOG, {"a": (range(7), 4)}, EngineSettings(10, 4))
    with pytest.raises(InvalidValue, match="clients is 0"):
        foretold([(1, 1)], 0, EngineSettings(10, 4))


@pytest.mark.live
@pytest.mark.timeout(300)
def test_a_live_engine_under_pressure_takes_the_replayed_steps(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from transformers import AutoTokenizer

    log = tmp_path / "steps.jsonl"
    lengths = [(20 + 11 * (n % 5), 40 + 23 * (n % 4)) for n in range(12)]
    engine_settings = EngineSettings(20, 32, max_num_seqs=16, max_num_batched_tokens=512, max_model_len=512)

    async def serve() -> tuple[dict[str, tuple[list[int], int]], float | None]:
        arguments = {
            "block_size": 32,
            "num_gpu_blocks_override": 20,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 512,
            "max_model_len": 512,
            "async_scheduling": False,
            "scheduler_cls": SCHEDULER,
            "additional_config": {CONFIG_KEY: str(log)},
        }
        async with await connect("vllm", "small", linger_s=0, **arguments) as engine:
            make = ExactLengths(str(engine.tokenizer_path))
            requests = [make(*one) for one in lengths]
            answers = await asyncio.gather(*(complete(engine, request) for request in requests))
            preemptions = (await engine.metrics()).preemptions
        tokenizer = AutoTokenizer.from_pretrained(engine.tokenizer_path)
        served = {}
        for answer, request, (_, output) in zip(answers, requests, lengths, strict=True):
            chat = [{"role": "user", "content": request.messages[0].content}]
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            served[answer.done.response_id] = (list(prompt), output)
        return served, preemptions

    served, preemptions = asyncio.run(serve())
    steps = read_step_log(log)
    requests = {id: served[id.rpartition("-")[0]] for step in steps for id, _, _ in step.tokens}
    assert replayed(steps, requests, engine_settings) == steps
    assert preemptions == sum(len(step.preempted) for step in steps)
    assert preemptions
    assert computed_twice(steps) > 0
    assert all(seen.blocks == seen.engine_blocks for seen in step_memory(steps, 20, 32))
