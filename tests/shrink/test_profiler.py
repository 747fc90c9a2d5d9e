"""The time that a compressor saves: against the modelled engine, by hand, and live."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import ScriptedEngine, connect
from labkit.engines.modelled import EngineSettings, simulate_closed
from labkit.latency import HOPPER, LatencyModel, datasheet_model, hardware, shape
from labkit.load import ExactLengths
from labkit.request import InvalidValue, Message, Request, clock
from labkit.shrink import (
    Cut,
    Shrinker,
    Shrunk,
    Took,
    check_gain,
    e2e_seconds,
    fit_time,
    gains,
    measured_seconds,
    predicted_gain,
    scorer_seconds,
    windows,
)

H100 = datasheet_model(shape("llama-3.1-8b"), hardware("h100"), reached=HOPPER)


@given(st.integers(1, 20_000), st.integers(1, 60))
def test_end_to_end_is_what_the_modelled_engine_takes(prompt, output):
    settings = EngineSettings(
        num_blocks=4000, block_size=16, max_num_seqs=4, max_num_batched_tokens=8192, enable_prefix_caching=False
    )
    run = simulate_closed([prompt], [output], 1, H100, settings)
    said = float(run.ttft[0]) + (output - 1) * (float(run.tpot[0]) if output > 1 else 0.0)
    assert e2e_seconds(H100, prompt, output) == pytest.approx(said, rel=1e-6)


def test_a_gain_by_hand():
    # 1 ms a step, 1 ms a prompt token: 100 tokens and 11 of output take 101 + 10 ms.
    plain = LatencyModel(1e-3, 0, 1e-3, 0, 0, 0)
    gain = predicted_gain(plain, Took(5e-3, 1e-4), 100, 0.5, 11)
    assert gain.before_s == pytest.approx(0.101 + 10 * 0.002)
    assert gain.own_s == pytest.approx(0.015)
    assert gain.after_s == pytest.approx(0.015 + 0.051 + 10 * 0.002)
    assert gain.share == pytest.approx(0.035 / 0.121)


def test_there_is_a_window_and_outside_of_it_the_compressor_eats_the_gain():
    took = Took(20e-3, 10e-6)
    lengths = range(500, 30_000, 500)
    pays = windows(lengths, lambda n: predicted_gain(H100, took, n, 0.5, 100).share > 0)
    assert len(pays) == 1
    assert lengths[0] < pays[0][0] < pays[0][1] == lengths[-1]
    slow = gains(H100, Took(0, 1e-3), lengths, (0.2, 0.5), 100)
    assert len(slow) == 2 * len(lengths)
    assert all(gain.share < 0 for gain in slow)


def test_a_scorer_as_large_as_the_model_cannot_pay():
    gain = predicted_gain(H100, scorer_seconds(H100), 8000, 0.1, 100)
    assert gain.own_s == pytest.approx(e2e_seconds(H100, 8000, 1))
    assert gain.share < 0


@given(st.floats(1e-4, 1e-1), st.floats(1e-7, 1e-3))
def test_the_line_that_was_measured_is_found_again(fixed, each):
    points = [(n, fixed + each * n) for n in (50, 200, 900, 4000)]
    found = fit_time(points)
    assert [found(n) for n, _ in points] == pytest.approx([seconds for _, seconds in points], rel=1e-6)


@dataclass(frozen=True)
class Slow(Shrinker):
    """Half of the last message, after a pause of so many seconds for each character."""

    each_s: float = 0.01

    async def shrink(self, request: Request) -> Shrunk:
        last = request.messages[-1].content
        await asyncio.sleep(self.each_s * len(last))
        return Shrunk.of(request.messages, [Cut(len(request.messages) - 1, 0, len(last) // 2)])


def test_what_is_measured_on_a_clock_of_its_own():
    requests = [Request((Message("user", "x" * n),)) for n in (10, 20)]
    points = clock.run_virtual(measured_seconds(Slow(), requests, len, rounds=3))
    assert points == [(10, pytest.approx(0.1)), (20, pytest.approx(0.2))]
    engine = ScriptedEngine(("a", "b"), gap_s=0.5, input_tokens=40)
    (one, _) = clock.run_virtual(check_gain(engine, Slow(), requests, rounds=2, model=H100, took=Took(0.1, 0)))
    assert one.gain.own_s == pytest.approx(0.1)
    assert one.gain.after_s == pytest.approx(one.gain.before_s + 0.1)
    assert one.predicted is not None
    assert one.predicted.prompt_tokens == 40


@pytest.mark.live
@pytest.mark.timeout(300)
def test_live_the_check_counts_what_the_engine_read():
    async def main():
        async with await connect("vllm", model="small", max_model_len=1024) as engine:
            make = ExactLengths(engine.tokenizer_path)
            return await check_gain(engine, Slow(5e-4), [make(400, 8)], rounds=2)

    (one,) = asyncio.run(main())
    assert one.prompt_tokens == 400
    assert 0.3 < one.left < 0.8
    assert one.gain.after_s > one.gain.own_s > 0
    assert one.gain.before_s > 0


def test_what_cannot_be_is_named():
    for make, says in (
        (lambda: predicted_gain(H100, Took(0, 0), 0, 0.5, 1), "0 prompt"),
        (lambda: predicted_gain(H100, Took(0, 0), 10, 0, 1), "the share 0 is left"),
        (lambda: fit_time([(5, 1.0), (5, 2.0)]), "two lengths"),
        (lambda: fit_time([(5, 1.0), (6, 0.0)]), "above 0"),
    ):
        with pytest.raises(InvalidValue, match=says):
            make()
