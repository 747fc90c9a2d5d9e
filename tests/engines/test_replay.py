"""A recording gives back what was measured, with its timings and its origin, and nothing else."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.engines import Engine, Provenance, Recorded, Recording, RecordingError, connect, record
from labkit.engines.metrics import MetricsSnapshot, counted
from labkit.engines.provenance import call_text
from labkit.request import (
    Chunk,
    Completion,
    DeadlineExceeded,
    Done,
    EngineError,
    Event,
    InvalidValue,
    Request,
    Timing,
    TokenLogprob,
    Usage,
    asked,
    canonical,
    clock,
    complete,
    within,
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
    original = clock.run_virtual(complete(Recorded(path, ORIGIN)(engine), request))

    async def play() -> Completion:
        await asyncio.sleep(later)
        return await complete(Recording.load(path), replace(request, tenant="other", attempt=2))

    assert relative(clock.run_virtual(play())) == relative(original)


def test_concurrent_replays_overlap_in_time(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> float:
        writer = Recorded(path, ORIGIN)(modelled([1.0], ["x"]))
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
        first = Recorded(path, ORIGIN)(modelled([0.1], ["first"]))
        await complete(first, Request("q"))
        lines = path.read_text()
        path.write_text(lines + lines.splitlines()[1].replace('"text":"first"', '"text":"second"') + "\n")
        replay = Recording.load(path)
        return [(await complete(replay, Request("q"))).text for _ in range(3)]

    assert clock.run_virtual(scenario()) == ["first", "second", "first"]


def test_an_unknown_request_is_told_what_the_recording_holds(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        await complete(Recorded(path, ORIGIN)(modelled([0.1], ["x"])), Request("a known question"))
        with pytest.raises(RecordingError, match=r"(?s)'an unknown one'.*'a known question'.*live engine"):
            await complete(Recording.load(path), Request("an unknown one"))
        with pytest.raises(RecordingError, match="max_tokens=5"):
            await complete(Recording.load(path), Request("a known question", max_tokens=5))

    clock.run_virtual(scenario())


@pytest.mark.parametrize(
    "arguments",
    [
        {"enforce_eager": True, "enable_prefix_caching": False, "seed": None, "max_model_len": 5},
        {"additional_config": {"z": [1.5, True, None], "a": {"text": 'it\'s "é"\nand more ' * 20}}},
    ],
)
def test_the_command_of_a_provenance_is_python_whatever_the_arguments(arguments: dict) -> None:
    text = call_text("vllm", "small", arguments)
    assert "\n" not in text
    call = ast.parse(text.removeprefix("await "), mode="eval").body
    assert isinstance(call, ast.Call)
    assert [ast.literal_eval(argument) for argument in call.args] == ["vllm", "small"]
    assert [ast.literal_eval(keyword.value) for keyword in call.keywords] == [arguments]
    turned = dict(reversed(arguments.items()))
    assert call_text("vllm", "small", turned) == text


@pytest.mark.parametrize("name", [f.name for f in fields(Provenance)])
def test_a_recording_that_lacks_part_of_its_provenance_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.jsonl"
    Recorded(path, ORIGIN)(modelled([0.1], ["x"]))
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
    Recorded(path, ORIGIN)(modelled([0.1], ["x"]))
    with pytest.raises(RecordingError, match="delete it"):
        Recorded(path, ORIGIN)(modelled([0.1], ["x"]))
    with pytest.raises(RecordingError, match="cannot be recorded"):
        Recorded(tmp_path / "other.jsonl", Recording.load(path).provenance)


def test_a_cancelled_answer_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        async with aclosing(Recorded(path, ORIGIN)(modelled([0.1, 0.1], ["x", "y"]))(Request("q"))) as events:
            async for _ in events:
                break

    clock.run_virtual(scenario())
    assert Recording.load(path).requests == ()


def test_a_recording_session_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async def broken(request: Request) -> AsyncIterator[Event]:
        raise InvalidValue("no")
        yield

    with pytest.raises(InvalidValue):
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
        return await complete(Recorded(path, live.provenance, live.context_window)(live), request)

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
        writer = Recorded(path, ORIGIN, metrics=engine.metrics)(engine)
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
        writer = Recorded(path, ORIGIN, metrics=engine.metrics)(engine)
        await asyncio.gather(complete(writer, Request("a")), complete(writer, Request("b")))
        await complete(writer, Request("c"))
        replay = Recording.load(path)
        await complete(replay, Request("c"))
        assert replay.metrics().generation_tokens == 2
        await complete(replay, Request("a"))
        with pytest.raises(EngineError, match="does not hold what the engine counted"):
            replay.metrics()

    clock.run_virtual(play())


def old_file(path: Path, *exchanges: str) -> Path:
    header = {"labkit_recording": 1, "provenance": ORIGIN.as_dict(), "context_window": None}
    path.write_text("\n".join([json.dumps(header), *exchanges]) + "\n")
    return path


ANSWER = (
    '"chunks":[{"at":0.5,"text":"é\u2028","tokens":1}],"done":{"usage":{"input_tokens":4,"output_tokens":1},'
    '"times":[0.5,0.5,0.75],"finish_reason":"stop","model":"m","response_id":"r"}'
)


@pytest.mark.parametrize(
    "what",
    [
        '{"messages":[["user","q"]],"max_tokens":128,"temperature":0.0}',
        '{"messages":[["user","q"]],"max_tokens":128,"temperature":0}',
        '{"messages":[["user","q"]],"max_tokens":128,"temperature":-0.0,"top_p":1,"seed":null,"extra":{}}',
        '{"extra":{},"max_tokens":128,"messages":[["user","q"]],"temperature":0.0,"logprobs":null}',
    ],
)
def test_a_file_of_before_a_field_or_with_whole_numbers_answers_the_same_question(tmp_path: Path, what: str) -> None:
    replay = Recording.load(old_file(tmp_path / "r.jsonl", f'{{"request":{what},{ANSWER}}}'))
    answer = clock.run_virtual(complete(replay, Request("q")))
    assert (answer.text, answer.done.usage, answer.done.timing.e2e) == ("é\u2028", Usage(4, 1), 0.75)


def test_a_recording_and_a_cache_tell_questions_apart_by_one_identity(tmp_path: Path) -> None:
    grammar = {"type": "json_schema", "json_schema": {"properties": {"a": {}, "b": {}}}}
    turned = {"type": "json_schema", "json_schema": {"properties": {"b": {}, "a": {}}}}
    requests = [
        Request("q", response_format=grammar, extra={"x": 1, "y": 2}),
        Request("q", response_format=grammar, extra={"y": 2, "x": 1}, tenant="t", priority=3),
        Request("q", response_format=turned, extra={"x": 1, "y": 2}),
    ]
    identities = [canonical(asked(request)) for request in requests]
    assert [identities[0] == other for other in identities] == [True, True, False]
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        await record(modelled([0.1], ["x"]), requests[:1], path, ORIGIN)
        replay = Recording.load(path)
        assert (await complete(replay, requests[1])).text == "x"
        with pytest.raises(RecordingError, match="does not hold this request"):
            await complete(replay, requests[2])

    clock.run_virtual(scenario())


def test_half_an_emoji_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    request = Request("half \ud83d")
    original = clock.run_virtual(complete(Recorded(path, ORIGIN)(modelled([0.1], ["ok \ud83d"])), request))
    assert clock.run_virtual(complete(Recording.load(path), request)).text == original.text == "ok \ud83d"


@pytest.mark.parametrize(
    "line",
    ["3", "[]", "{}", '"text"', f'{{"request":{{}},"chunks":[],"done":3,{ANSWER}}}'.replace(ANSWER, '"x":1')]
    + [f'{{"request":{what},{ANSWER}}}' for what in ("3", '{"messages":[]}', '{"messages":"q"}', '{"messages":[3]}')]
    + [f'{{"request":{{"messages":[["user","q"]]{more}}},{ANSWER}}}' for more in (',"top_p":"x"', ',"temperature":{}')],
)
def test_a_damaged_exchange_is_named(tmp_path: Path, line: str) -> None:
    whole = f'{{"request":{{"messages":[["user","q"]]}},{ANSWER}}}'
    with pytest.raises(RecordingError, match="exchange 2 of"):
        Recording.load(old_file(tmp_path / "r.jsonl", whole, line))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"labkit_recording":1,"provenance":[]}'])
def test_a_file_of_other_bytes_is_no_recording(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"recording|origin"):
        Recording.load(path)


@pytest.mark.parametrize("broken", ["before", "after", "file"])
def test_an_answer_that_cannot_be_recorded_is_given_all_the_same_and_tells_why(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "r.jsonl"
    calls = 0

    async def metrics() -> MetricsSnapshot:
        nonlocal calls
        calls += 1
        if calls == {"before": 1, "after": 2}.get(broken):
            raise ConnectionError("no metrics")
        return counted({})

    writer = Recorded(path, ORIGIN, metrics=metrics)(modelled([0.1], ["x"]))
    if broken == "file":
        path.unlink()
        path.mkdir()
    answer = clock.run_virtual(complete(writer, Request("q")))
    assert answer.text == "x"
    (fault,) = answer.done.faults
    assert fault.where == "recorded"
    if broken != "file":
        assert isinstance(fault.error, ConnectionError)
        replay = Recording.load(path)
        assert clock.run_virtual(complete(replay, Request("q"))).text == "x"
        with pytest.raises(EngineError, match="does not hold what the engine counted"):
            replay.metrics()


def test_a_session_whose_answers_cannot_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def spoiling(request: Request) -> AsyncIterator[Event]:
        unfinished = path.with_name("r.jsonl.unfinished")
        unfinished.unlink()
        unfinished.symlink_to(tmp_path / "missing" / "folder")
        async with aclosing(modelled([0.1], ["x"])(request)) as events:
            async for event in events:
                yield event

    with pytest.raises(RecordingError, match="could not be written"):
        clock.run_virtual(record(spoiling, [Request("q")], path, ORIGIN))
    assert list(tmp_path.iterdir()) == []


def test_a_deadline_holds_on_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"

    async def scenario() -> None:
        await record(modelled([1.0, 1.0], ["x", "y"]), [Request("q")], path, ORIGIN)
        with pytest.raises(DeadlineExceeded) as late:
            await complete(Recording.load(path), within(Request("q"), 1.5))
        assert late.value.partial == "x"

    clock.run_virtual(scenario())
