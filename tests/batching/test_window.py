from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import CoalescingWindow
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.request import Chunk, Done, InvalidValue, Request, Timing, Usage, clock, complete, within

LATENCY = LatencyModel(step_s=1.0, sequence_s=0, linear_s=0, weights_s=0, pair_s=0, kv_s=0)


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 10_000))


class Notes:
    """An engine that answers at once and notes when it was asked."""

    def __init__(self):
        self.at = []

    async def __call__(self, request):
        self.at.append(clock.now())
        yield Chunk("a", clock.now())
        yield Done(Usage(1, 1), Timing(clock.now(), clock.now(), clock.now(), clock.now()))


async def later(seconds, handler, request):
    await asyncio.sleep(seconds)
    return await complete(handler, request)


def test_an_engine_starts_held_requests_in_one_step():
    ids = {"prompt_token_ids": [1, 2, 3]}
    arrivals = [0.0, 0.3, 0.9]

    async def main(window):
        steps = []
        async with ModelledEngine(LATENCY, EngineSettings(num_blocks=100), on_step=steps.append) as engine:
            handler = CoalescingWindow(window)(engine) if window else engine
            answers = await asyncio.gather(
                *(later(at, handler, Request("q", max_tokens=2, extra={**ids, "cache_salt": str(at)})) for at in arrivals)
            )
        return [sum(share.entering for share in step.scheduled) for step in steps], answers

    entering, answers = run(main(1.0))
    assert entering == [3, 0]
    assert [a.done.timing.e2e for a in answers] == pytest.approx([3.0, 2.7, 2.1]), "the hold is part of the wait"
    assert [a.done.timing.ttft for a in answers] == pytest.approx([2.0, 1.7, 1.1])
    assert answers[0].done.route[0] == "coalescing-window"
    assert run(main(0.0))[0][0] == 1, "without the lever the first one starts alone"


@settings(max_examples=80)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.floats(0.01, 20))
def test_each_is_released_at_the_end_of_the_window_that_was_open_or_that_it_opened(arrivals, window):
    engine = Notes()

    async def main():
        handler = CoalescingWindow(window)(engine)
        await asyncio.gather(*(later(at, handler, Request("q")) for at in arrivals))

    run(main())
    expected, until = [], -1.0
    for at in sorted(arrivals):
        if until <= at:
            until = at + window
        expected.append(until)
    assert engine.at == pytest.approx(expected)
    assert len(set(engine.at)) == len(set(expected)), "together to the last bit"


def test_no_window_holds_nobody():
    engine = Notes()

    async def main():
        handler = CoalescingWindow(0)(engine)
        return await asyncio.gather(*(later(at, handler, Request("q")) for at in (0, 0, 1)))

    assert [answer.done.timing.e2e for answer in run(main())] == [0, 0, 0]
    assert engine.at == [0, 0, 1]


def test_who_leaves_while_held_never_reaches_the_engine():
    engine = Notes()

    async def main():
        handler = CoalescingWindow(5)(engine)
        hurried = complete(handler, within(Request("q"), 1))
        patient = complete(handler, Request("q"))
        return await asyncio.gather(hurried, patient, return_exceptions=True)

    gone, served = run(main())
    assert isinstance(gone, TimeoutError)
    assert served.text == "a"
    assert engine.at == [5]


def test_one_lever_serves_loop_after_loop_on_both_clocks():
    engine = Notes()
    handler = CoalescingWindow(0.01)(engine)

    async def main():
        return len(await asyncio.gather(*(complete(handler, Request("q")) for _ in range(3))))

    assert run(main()) == asyncio.run(main()) == run(main()) == 3
    assert [len(set(engine.at[i : i + 3])) for i in (0, 6)] == [1, 1]


@pytest.mark.parametrize("window", [-1, float("inf"), float("nan"), "0.01", None, True])
def test_a_window_that_never_ends_is_refused(window):
    with pytest.raises(InvalidValue):
        CoalescingWindow(window)
