from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from labkit.engines import Recorded, RecordingError
from labkit.engines.modelled import EngineSettings, ModelledEngine, Step
from labkit.latency import LatencyModel, StepWork
from labkit.request import (
    Chunk,
    Completion,
    ContextWindowExceeded,
    DeadlineExceeded,
    EngineError,
    InvalidRequest,
    Request,
    clock,
    complete,
    within,
)
from labkit.request.clock import run_virtual

MODEL = LatencyModel(
    step_s=0.01,
    sequence_s=0.001,
    linear_s=0.0001,
    weights_s=0.002,
    pair_s=1e-7,
    kv_s=1e-6,
    request_s=0.05,
    prompt_token_s=1e-5,
)
SETTINGS = EngineSettings(num_blocks=65, block_size=4, max_num_seqs=4, max_num_batched_tokens=64)


def ask(prompt: range | list[int], output: int, **more: object) -> Request:
    return Request("x", max_tokens=output, extra={"prompt_token_ids": prompt, **more})


def sequentially(*pairs: tuple[int, int]) -> float:
    return MODEL.step_seconds(StepWork.of(pairs))


def test_one_request_takes_its_way_in_and_then_its_steps():
    async def main() -> Completion:
        return await complete(ModelledEngine(MODEL, SETTINGS), ask(range(100), 3))

    answer = run_virtual(main())
    timing = answer.done.timing
    way_in = 0.05 + 100 * 1e-5
    prefill = sequentially((64, 0)) + sequentially((36, 64))
    assert timing.ttft == pytest.approx(way_in + prefill, abs=1e-8)
    assert timing.e2e == pytest.approx(way_in + prefill + sequentially((1, 100)) + sequentially((1, 101)), abs=1e-8)
    assert answer.text == "modelled " * 3
    assert (answer.done.usage.input_tokens, answer.done.usage.output_tokens) == (100, 3)
    assert answer.done.finish_reason == "length"


def test_requests_share_steps_and_the_metrics_count_them_as_vllm_does():
    steps: list[Step] = []

    async def main() -> tuple[list[Completion], object, object]:
        engine = ModelledEngine(MODEL, SETTINGS, on_step=steps.append)
        before = await engine.metrics()
        first = await complete(engine, ask(range(9), 2))
        answers = await asyncio.gather(*(complete(engine, ask([*range(8), 50 + n], 4)) for n in range(3)))
        return [first, *answers], (await engine.metrics()) - before, await engine.metrics()

    answers, difference, end = run_virtual(main())
    assert [answer.done.usage.cached_tokens for answer in answers] == [0, 8, 8, 8]
    assert [len(step.scheduled) for step in steps] == [1, 1, 3, 3, 3, 3]
    assert (difference.prompt_tokens, difference.cached_prompt_tokens) == (36, 24)
    assert (difference.generation_tokens, difference.requests_finished, difference.preemptions) == (14, 4, 0)
    assert (end.requests_running, end.requests_waiting, end.kv_cache_usage) == (0, 0, 0.0)
    assert end.kv_cache_tokens == 65 * 4


def test_an_earlier_stop_is_no_length_stop():
    async def main() -> Completion:
        return await complete(ModelledEngine(MODEL, SETTINGS, output_tokens=lambda _: 2), ask(range(5), 10))

    done = run_virtual(main()).done
    assert (done.usage.output_tokens, done.finish_reason) == (2, "stop")


def test_closing_a_stream_frees_its_blocks_when_the_step_ends():
    async def main() -> tuple[float, float, int]:
        engine = ModelledEngine(MODEL, SETTINGS)
        other = asyncio.create_task(complete(engine, ask(range(100, 110), 40)))
        async with aclosing(engine(ask(range(40), 100))) as events:
            async for event in events:
                assert isinstance(event, Chunk)
                break
        during = (await engine.metrics()).kv_cache_usage
        await asyncio.sleep(0.1)
        after = (await engine.metrics()).kv_cache_usage
        await other
        await asyncio.sleep(0.1)
        return during, after, len(asyncio.all_tasks())

    during, after, tasks = run_virtual(main())
    assert during >= (10 + 3) / 64
    assert after < 10 / 64
    assert tasks == 1  # nothing of the engine is left behind


def test_a_deadline_stops_the_engines_work_for_it():
    async def main() -> tuple[float, float]:
        engine = ModelledEngine(MODEL, SETTINGS)
        with pytest.raises(DeadlineExceeded) as caught:
            await complete(engine, within(ask(range(40), 100), 0.3))
        at = clock.now()
        await asyncio.sleep(0.1)
        assert caught.value.partial.startswith("modelled modelled ")
        return at, (await engine.metrics()).kv_cache_usage

    at, usage = run_virtual(main())
    assert at == pytest.approx(0.3, abs=1e-6)
    assert usage == 0


def test_a_request_cancelled_on_its_way_in_never_reaches_the_scheduler():
    async def main() -> float:
        engine = ModelledEngine(MODEL, SETTINGS)
        task = asyncio.create_task(complete(engine, ask(range(40), 100)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(1)
        return (await engine.metrics()).generation_tokens

    assert run_virtual(main()) == 0


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        (ask(range(250), 10), ContextWindowExceeded, "250 prompt tokens and up to 10 output tokens exceed .* 256"),
        (ask([], 10), InvalidRequest, "no tokens"),
        (Request("x"), InvalidRequest, "prompt_token_ids"),
        (Request("x", logprobs=0, extra={"prompt_token_ids": [1]}), InvalidRequest, "probabilities"),
    ],
)
def test_what_can_never_be_served_is_refused_with_a_reason(request_: Request, error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        run_virtual(complete(ModelledEngine(MODEL, SETTINGS), request_))


def test_a_fault_in_the_model_reaches_every_caller():
    class Broken(LatencyModel):
        def step_seconds(self, work: StepWork) -> float:
            raise ZeroDivisionError("a broken model")

    async def main() -> list[object]:
        engine = ModelledEngine(Broken(1, 1, 1, 1, 1, 1), SETTINGS)
        return await asyncio.gather(*(complete(engine, ask(range(4), 2)) for _ in range(2)), return_exceptions=True)

    assert ["a broken model" in str(error) for error in run_virtual(main())] == [True, True]


def test_the_wall_clock_gives_the_same_steps_and_waits_for_them():
    def run(runner: Callable[[Coroutine[Any, Any, Completion]], Completion]) -> tuple[float, list[tuple[int, ...]]]:
        steps: list[Step] = []
        engine = ModelledEngine(LatencyModel(0.004, 0.0001, 1e-5, 0, 0, 0), SETTINGS, on_step=steps.append)
        answer = runner(complete(engine, ask(range(100), 5)))
        assert answer.done.timing.e2e is not None
        return answer.done.timing.e2e, [share[1:] for step in steps for share in step.scheduled]

    wall, virtual = run(asyncio.run), run(run_virtual)
    assert wall[1] == virtual[1]
    assert wall[0] >= virtual[0] - 1e-6


def test_closing_the_engine_ends_open_streams_with_an_error():
    async def main() -> None:
        async with ModelledEngine(MODEL, SETTINGS) as engine:
            task = asyncio.create_task(complete(engine, ask(range(40), 100)))
            await asyncio.sleep(0.2)
        with pytest.raises(EngineError, match=r"after \d+ tokens: it was closed"):
            await task
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


def test_one_engine_serves_one_loop_after_another():
    engine = ModelledEngine(MODEL, SETTINGS)
    first, second = (run_virtual(complete(engine, ask(range(100 * n, 100 * n + 9), 3))) for n in range(2))
    assert first.done.timing.e2e == pytest.approx(second.done.timing.e2e)


def test_a_modelled_number_says_that_it_is_one_and_cannot_be_recorded(tmp_path):
    engine = ModelledEngine(MODEL, SETTINGS, name="8B", device="H200 (datasheet)")
    assert engine.provenance.caption().endswith("H200 (datasheet) · MODELLED, not measured")
    with pytest.raises(RecordingError, match="not measured"):
        Recorded(tmp_path / "x.jsonl", engine.provenance)
