"""What nobody should send, and what no engine should do: a clear refusal, and nobody lost or answered twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import Batcher, CoalescingWindow, Gate, OffPeak, Pool, Pooled, QueueFull
from labkit.caches import SingleFlight
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.request import (
    Chunk,
    Completion,
    ContextWindowExceeded,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidRequest,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)

LATENCY = LatencyModel(step_s=0.5, sequence_s=0, linear_s=0, weights_s=0, pair_s=0, kv_s=0)


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 100_000))


def asked(number, prompt=3, output=4):
    extra = {"prompt_token_ids": [*range(prompt)], "cache_salt": str(number)}
    return Request(f"question {number}", max_tokens=output, feature="p", extra=extra)


def levers(gate, window_s=0.2):
    """Every lever of this room that a request may pass, and the one that shares a stream."""
    night = OffPeak(level=2, seats=2, work_s=lambda request: 0.5 * request.max_tokens, min_slack_s=1)
    return night, SingleFlight(), CoalescingWindow(window_s), Pooled(gate)


@settings(max_examples=100)
@given(
    st.integers(2, 12),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(1, 120), st.integers(1, 120)), min_size=1, max_size=8),
)
def test_what_the_cache_can_never_hold_is_refused_and_all_else_is_served_to_its_last_token(blocks, block_size, sizes):
    engine_settings = EngineSettings(blocks, block_size, max_num_seqs=4, max_num_batched_tokens=64)
    gate = Gate(3, Pool("p"))

    async def one(handler, i, prompt, output):
        try:
            return (await complete(handler, asked(i, prompt, output))).done.usage.output_tokens
        except ContextWindowExceeded as error:
            return str(error)

    async def main():
        async with ModelledEngine(LATENCY, engine_settings) as engine:
            handler = stack(*levers(gate), engine=engine)
            return await asyncio.gather(*(one(handler, i, *size) for i, size in enumerate(sizes)))

    room = (blocks - 1) * block_size  # vLLM keeps a block back
    for (prompt, output), what in zip(sizes, run(main()), strict=True):
        if prompt + output <= room:
            assert what == output
        else:
            assert what.startswith(f"{prompt} prompt tokens and up to {output} output tokens exceed")
    assert (gate.under_way("p"), gate.waiting("p")) == (0, 0)


def test_no_output_at_all_is_refused_before_anything_is_sent():
    with pytest.raises(InvalidRequest, match="max_tokens is 0; ask for at least 1"):
        asked(1, output=0)


async def speechless(request):
    """An engine whose first token ends the answer."""
    sent = clock.now()
    await asyncio.sleep(1)
    yield Done(Usage(3, 1), Timing(sent, None, None, clock.now()))


@pytest.mark.parametrize("patience", [None, 60])
def test_an_empty_answer_is_an_answer_through_every_lever(patience):
    gate = Gate(2, Pool("p"))

    async def main():
        handler = stack(*levers(gate), engine=speechless)
        requests = [asked(i % 3) if patience is None else within(asked(i % 3), patience) for i in range(6)]
        return await asyncio.gather(*(complete(handler, request) for request in requests))

    answers = run(main())
    assert [(a.text, a.chunks, a.done.timing.ttft) for a in answers] == [("", (), None)] * 6
    if patience is None:  # those with a deadline are held, and not at the engine together
        assert sum(a.done.usage.output_tokens for a in answers) == 3, "of six callers with three questions"
    assert all(a.done.timing.e2e >= 1 for a in answers)


def test_an_empty_result_is_a_result_of_a_batcher():
    async def nothing(items):
        return ["" for _ in items]

    async def main():
        async with Batcher(nothing, max_size=4, max_wait_s=1, identity=str) as batcher:
            return await asyncio.gather(*map(batcher.submit, "aab"))

    assert run(main()) == ["", "", ""]


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(0, 30))
def test_of_a_burst_over_the_limit_those_in_it_are_answered_and_the_others_told_at_once(seats, limit, burst):
    gate = Gate(seats, Pool("p", queue_limit=limit))

    async def main():
        async with ModelledEngine(LATENCY, EngineSettings(100, max_num_seqs=seats)) as engine:
            handler = Pooled(gate)(engine)

            async def one(i):
                try:
                    return (await complete(handler, asked(i))).done.usage.output_tokens
                except QueueFull:
                    assert clock.now() == 0
                    return None

            return await asyncio.gather(*map(one, range(burst)))

    fit = min(burst, seats + limit)
    assert run(main()) == [4] * fit + [None] * (burst - fit)


class Restarting:
    """A modelled engine that is killed at some times, with all it has under way, and is back `away_s` later."""

    def __init__(self, away_s):
        self.away_s = away_s
        self.engine = self.new()

    def new(self):
        return ModelledEngine(LATENCY, EngineSettings(40, 4, max_num_seqs=3, max_num_batched_tokens=16))

    async def __call__(self, request):
        if self.engine is None:
            raise EngineError("nothing answers")
        async with aclosing(self.engine(request)) as events:
            async for event in events:
                yield event

    async def live_through(self, kills):
        for at in sorted(kills):
            await clock.sleep_until(at)
            dying, self.engine = self.engine, None
            if dying is not None:
                await dying.aclose()
            await asyncio.sleep(self.away_s)
            self.engine = self.new()


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 9), st.integers(0, 6), st.none() | st.floats(0.1, 9)),
        min_size=1,
        max_size=20,
    ),
    st.lists(st.floats(0, 25), max_size=4),
    st.floats(0, 3),
)
def test_while_an_engine_is_killed_again_and_again_each_caller_gets_one_answer_or_one_error(load, kills, away_s):
    gate = Gate(2, Pool("p", queue_limit=5))

    async def one(handler, at, output, number, patience):
        await asyncio.sleep(at)
        request = asked(number, output=output)
        try:
            answer = await complete(handler, request if patience is None else within(request, patience))
        except (EngineError, QueueFull, DeadlineExceeded) as error:
            return type(error)
        assert answer.done.usage.output_tokens <= answer.text.count("modelled"), "others may have paid for some"
        return answer.text.count("modelled")

    async def main():
        engine = Restarting(away_s)
        handler = stack(*levers(gate), engine=engine)
        before = asyncio.all_tasks()
        killer = asyncio.create_task(engine.live_through(kills))
        found = await asyncio.gather(*(one(handler, *call) for call in load))
        await killer
        last = await complete(handler, asked("last"))
        await engine.engine.aclose()
        assert asyncio.all_tasks() == before
        return found, last

    found, last = run(main())
    assert last.done.usage.output_tokens == 4, "it serves again"
    assert (gate.under_way("p"), gate.waiting("p")) == (0, 0)
    for (_, output, _, patience), what in zip(load, found, strict=True):
        assert isinstance(what, type) or what == output
        assert what is not DeadlineExceeded or patience is not None
    if not kills and not any(patience for *_, patience in load):
        assert not any(what is EngineError for what in found)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["answers", "breaks off", "raises", "hangs"]), min_size=1, max_size=15), st.integers(1, 3))
def test_however_a_stream_ends_its_seat_comes_back(ways, seats):
    gate = Gate(seats, Pool("p"))

    async def engine(request):
        sent = clock.now()
        way = ways[int(request.user)]
        await asyncio.sleep(1)
        yield Chunk("half ", clock.now())
        if way == "hangs":
            await asyncio.Event().wait()
        if way == "raises":
            raise ConnectionResetError("gone")
        if way == "answers":
            yield Done(Usage(1, 1), Timing(sent, sent, sent, clock.now()))

    async def main():
        handler = Pooled(gate)(engine)
        # Those before it have ended by their deadlines, so each comes to its turn.
        requests = [within(Request("q", feature="p", user=str(i)), 50 * (i + 1)) for i in range(len(ways))]
        return await asyncio.gather(*(complete(handler, r) for r in requests), return_exceptions=True)

    kinds = {"answers": Completion, "breaks off": StreamIncomplete, "raises": ConnectionResetError, "hangs": TimeoutError}
    for way, what in zip(ways, run(main()), strict=True):
        assert isinstance(what, kinds[way])
    assert (gate.under_way("p"), gate.waiting("p")) == (0, 0)
