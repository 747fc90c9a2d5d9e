"""The probe, on an engine whose constants are known, finds them; and says when it cannot see what it needs."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel, StepWork
from labkit.latency.fitting import CalibrationError, ttft_seconds, volley_seconds
from labkit.load.probing import MakeRequest, ProbePlan, probe
from labkit.request import Chunk, Request, clock
from labkit.request.clock import run_virtual
from labkit.request.errors import EngineUnreachable

TRUTH = LatencyModel(4e-3, 2e-4, 1.5e-5, 3e-4, 2e-9, 4e-8, 3e-3, 2e-6, 2.2e-3, 7e-4, 4e-4)


def fresh_prompts() -> MakeRequest:
    serial = count()

    def make(prompt: int, output: int) -> Request:
        ids = [next(serial), *range(prompt - 1)]
        return Request("modelled", max_tokens=output, extra={"prompt_token_ids": ids})

    return make


def engine(**settings: int) -> ModelledEngine:
    return ModelledEngine(TRUTH, EngineSettings(num_blocks=8000, **settings))


def test_the_probe_finds_the_constants_of_an_engine_that_has_them() -> None:
    calibration = run_virtual(probe(engine(), fresh_prompts()))
    assert calibration.median_error < 0.03
    for work in (
        StepWork.of([(1, 200)] * 12),
        StepWork.of([(900, 0), *[(1, 60)] * 5], 1),
        StepWork.of([(1, 900)] * 8),
    ):
        assert calibration.model.step_seconds(work) == pytest.approx(TRUTH.step_seconds(work), rel=0.02)
    found = calibration.model
    alone = [StepWork.of([(500, 0)], 1)]
    assert ttft_seconds(found, 500, alone) == pytest.approx(ttft_seconds(TRUTH, 500, alone), rel=0.02)
    for people in (3, 12, 24):
        assert volley_seconds(found, people, 100) == pytest.approx(volley_seconds(TRUTH, people, 100), rel=0.2)


def test_an_engine_that_cannot_hold_the_answers_at_once_is_named() -> None:
    with pytest.raises(CalibrationError, match="never all being written at once"):
        run_virtual(probe(engine(max_num_seqs=4), fresh_prompts()))


def test_a_stream_that_is_held_back_until_its_end_is_named() -> None:
    inner = engine()

    async def buffers(request: Request):
        held = [event async for event in inner(request)]
        for event in held:
            yield replace(event, at=clock.now()) if isinstance(event, Chunk) else event

    with pytest.raises(CalibrationError, match=r"1200 tokens never met a running answer of 384 tokens.*holds the stream"):
        run_virtual(probe(buffers, fresh_prompts(), ProbePlan(decode=(), cut_ins=(1200,), repeats=2)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ProbePlan(prompts=(), decode=((2, 32),), cut_ins=(), volleys=(), crowds=()), "some of its answers have no text"),
        (ProbePlan(prompts=(), decode=(), cut_ins=(), volleys=(), crowds=(2,)), "never under way"),
    ],
)
def test_answers_without_any_text_are_named(plan: ProbePlan, message: str) -> None:
    inner = engine()

    async def mute(request: Request):
        async for event in inner(request):
            if not isinstance(event, Chunk) or request.max_tokens == 1:
                yield event

    with pytest.raises(CalibrationError, match=message):
        run_virtual(probe(mute, fresh_prompts(), plan))


def test_answers_too_short_to_be_cut_into_are_made_longer() -> None:
    found = run_virtual(probe(engine(), fresh_prompts(), ProbePlan(decode=((2, 32), (8, 32)), output_tokens=5, repeats=2)))
    assert found.median_error < 0.03


def test_an_engine_that_dies_under_the_probe_is_named() -> None:
    inner, asked = engine(), count()

    async def dies(request: Request):
        if next(asked) > 60:
            raise EngineUnreachable("connection refused")
        async for event in inner(request):
            yield event

    with pytest.raises(EngineUnreachable, match="refused"):
        run_virtual(probe(dies, fresh_prompts()))
