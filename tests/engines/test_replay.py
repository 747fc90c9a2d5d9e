"""A recording gives back what was measured, with its timings and its origin, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.engines import Engine, Provenance, Recording, RecordingError, connect, record, recorded
from labkit.engines.metrics import MetricsSnapshot, counted
from labkit.request import (
    Chunk,
    Completion,
    Done,
    EngineError,
    Event,
    InvalidRequest,
    Request,
    Timing,
    TokenLogprob,
    Usage,
    clock,
    complete,
)

ORIGIN = Provenance(
    kind="live",
    machine="a test, 2 cores",
    device="CPU",
    engine="vLLM",
    engine_version="0.32.0",
    model="tiny",
    date="2026-11-20T12:00:00+00:00",
    command="pytest",
    arguments={"enforce_eager": True},
)


def modelled(gaps: list[float], texts: list[str]):
    """An engine on the clock: one chunk after each gap."""

    async def handle(request: Request) -> AsyncIterator[Event]:
        sent = clock.now()
        times = []
        for index, (gap, text) in enumerate(zip(gaps, texts, strict=True)):
            await asyncio.sleep(gap)
            times.append(clock.now())
            usage = Usage(4, index + 1, cached_tokens=1)
            logprobs = (TokenLogprob(text, -0.5, ((text, -0.5), ("é", -1.25))),)
            yield Chunk(text, clock.now(), reasoning="hm" if index == 0 else "", logprobs=logprobs, usage=usage)
        await asyncio.sleep(0.25)
        timing = Timing(sent, times[0], times[-1], clock.now(), clock.unix_now())
        yield Done(Usage(4, len(gaps), cached_tokens=1), timing, "length", "tiny", response_id="r")

    return handle


def relative(answer: Completion) -> tuple:
    """An answer without the moment it was sent at."""
    sent = answer.done.timing.sent
    timing = answer.done.timing
    chunks = [replace(chunk, at=round(chunk.at - sent, 9)) for chunk in answer.chunks]
    times = [round(t - sent, 9) for t in (timing.first_token, timing.last_token, timing.done)]
    return chunks, times, replace(answer.done, timing=Timing(0.0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 10), st.text(min_size=1)), min_size=1, max_size=8), st.floats(0, 1000))
def test_a_replay_is_the_original_with_its_timings(tmp_path: Path, pieces: list[tuple[float, str]], later: float) -> None:
    path = tmp_path / "r.jsonl"
    path.unlink(missing_ok=True)
    engine = modelled([gap for gap, _ in pieces], [text for _, text in pieces])
    request = Request("why?", tenant="acme")
    original = clock.run_virtual(complete(recorded(engine, path, ORIGIN), request))

    async def play() -> Completion:
        await asyncio.sleep(later)
        return await complete(Recording.load(path), replace(request, tenant="other", attempt=2))

    assert relative(clock.run_virtual(play())) == relative(original)


def test_concurrent_replays_overlap_in_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> float:
        writer = recorded(modelled([1.0], ["x"]), path, ORIGIN)
        for prompt in "abc":
            await complete(writer, Request(prompt))
        replay = Recording.load(path)
        start = clock.now()
        await asyncio.gather(*(complete(replay, Request(prompt)) for prompt in "abc"))
        return clock.now() - start

    assert clock.run_virtual(scenario()) == pytest.approx(1.25)


def test_a_request_recorded_twice_is_answered_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> list[str]:
        first = recorded(modelled([0.1], ["first"]), path, ORIGIN)
        await complete(first, Request("q"))
        lines = path.read_text()
        path.write_text(lines + lines.splitlines()[1].replace('"text":"first"', '"text":"second"') + "\n")
        replay = Recording.load(path)
        return [(await complete(replay, Request("q"))).text for _ in range(3)]

    assert clock.run_virtual(scenario()) == ["first", "second", "first"]


def test_an_unknown_request_is_told_what_the_recording_holds(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        await complete(recorded(modelled([0.1], ["x"]), path, ORIGIN), Request("a known question"))
        with pytest.raises(RecordingError, match=r"(?s)'an unknown one'.*'a known question'.*live engine"):
            await complete(Recording.load(path), Request("an unknown one"))
        with pytest.raises(RecordingError, match="max_tokens=5"):
            await complete(Recording.load(path), Request("a known question", max_tokens=5))

    clock.run_virtual(scenario())


@pytest.mark.parametrize("name", [f.name for f in fields(Provenance)])
def test_a_recording_that_lacks_part_of_its_provenance_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.jsonl"
    recorded(modelled([0.1], ["x"]), path, ORIGIN)
    header = json.loads(path.read_text())
    del header["provenance"][name]
    path.write_text(json.dumps(header) + "\n")
    with pytest.raises(RecordingError, match=f"lacks {name}"):
        Recording.load(path)


@pytest.mark.parametrize("text", ["", "{}\n", '{"labkit_recording": 1}\n', "not json\n", '{"messages": []}\n'])
def test_a_file_without_a_header_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError, match=r"recording|origin"):
        Recording.load(path)


def test_a_recording_is_never_written_over_nor_made_from_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorded(modelled([0.1], ["x"]), path, ORIGIN)
    with pytest.raises(RecordingError, match="delete it"):
        recorded(modelled([0.1], ["x"]), path, ORIGIN)
    with pytest.raises(RecordingError, match="cannot be recorded"):
        recorded(Recording.load(path), tmp_path / "other.jsonl", Recording.load(path).provenance)


def test_a_cancelled_answer_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        async with aclosing(recorded(modelled([0.1, 0.1], ["x", "y"]), path, ORIGIN)(Request("q"))) as events:
            async for _ in events:
                break

    clock.run_virtual(scenario())
    assert Recording.load(path).requests == ()


def test_a_recording_session_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async def broken(request: Request) -> AsyncIterator[Event]:
        raise InvalidRequest("no")
        yield

    with pytest.raises(InvalidRequest):
        clock.run_virtual(record(broken, [Request("q")], tmp_path / "r.jsonl", ORIGIN))
    assert list(tmp_path.iterdir()) == []


def test_connect_replays_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        await record(modelled([0.5], ["x"]), [Request("q")], path, ORIGIN, context_window=2048)
        async with await connect("replay", "tiny", recording=path, progress=str) as engine:
            assert engine.provenance == replace(ORIGIN, kind="replay")
            assert "REPLAYED" in engine.provenance.caption()
            assert engine.context_window == 2048
            assert (await complete(engine, Request("q"))).text == "x"
            with pytest.raises(Exception, match="does not hold what the engine counted"):
                await engine.metrics()

    clock.run_virtual(scenario())


@pytest.mark.live
def test_a_live_answer_replays_token_for_token(live: Engine, tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl"
    request = Request("What is the return policy?", max_tokens=20, logprobs=2)

    async def measure() -> Completion:
        return await complete(recorded(live, path, live.provenance, live.context_window), request)

    original = asyncio.run(measure())
    replayed = clock.run_virtual(complete(Recording.load(path), request))
    assert relative(replayed) == relative(original)
    assert Recording.load(path).provenance == replace(live.provenance, kind="replay")


class Counting:
    """An engine that counts what it answers, as vLLM does: a prompt when it has been read, and each token as it is sent."""

    def __init__(self) -> None:
        self.counts = {"prompt_tokens": 100.0, "generation_tokens": 50.0}

    async def __call__(self, request: Request) -> AsyncIterator[Event]:
        self.counts["prompt_tokens"] += 4
        async with aclosing(modelled([0.1, 0.1], ["x", "y"])(request)) as events:
            async for event in events:
                self.counts["generation_tokens"] += isinstance(event, Chunk)
                yield event

    async def metrics(self) -> MetricsSnapshot:
        return counted(self.counts)


def test_a_replay_counts_what_the_engine_counted_for_the_answers_played(tmp_path):
    async def play() -> None:
        engine, path = Counting(), tmp_path / "r.jsonl"
        writer = recorded(engine, path, ORIGIN, metrics=engine.metrics)
        await complete(writer, Request("a"))
        await complete(writer, Request("b"))
        replay = Recording.load(path)
        before = replay.metrics()
        for question in ("b", "a", "a"):
            await complete(replay, Request(question))
        run = replay.metrics() - before
        assert (run.prompt_tokens, run.generation_tokens, run.preemptions) == (12, 6, None)

    clock.run_virtual(play())


def test_answers_that_shared_the_engine_are_recorded_without_counts(tmp_path):
    async def play() -> None:
        engine, path = Counting(), tmp_path / "r.jsonl"
        writer = recorded(engine, path, ORIGIN, metrics=engine.metrics)
        await asyncio.gather(complete(writer, Request("a")), complete(writer, Request("b")))
        await complete(writer, Request("c"))
        replay = Recording.load(path)
        await complete(replay, Request("c"))
        assert replay.metrics().generation_tokens == 2
        await complete(replay, Request("a"))
        with pytest.raises(EngineError, match="does not hold what the engine counted"):
            replay.metrics()

    clock.run_virtual(play())
