"""A start says what it waits for, at a pace that a reader can follow, and compares it with the last time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import EngineInfo, EngineStartError
from labkit.engines.choice import _OneLine
from labkit.engines.host import client, lease_engine, start_report
from labkit.engines.host.protocol import encode
from labkit.engines.host.start_report import EVERY_S, IMPORTING, StartReport, StepTimes


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times(tmp_path: Path) -> StepTimes:
    return StepTimes(tmp_path / "state" / "times.json", "model a")


def told(times: StepTimes, waits: list[tuple[str, float]], note: str = "") -> list[str]:
    """What is said while each step takes its seconds, with a tick every quarter of a second."""
    said: list[str] = []
    clock = Clock()
    report = StartReport(said.append, times, clock)
    for step, seconds in waits:
        report.begin(step, note)
        end = clock.now + seconds
        while clock.now < end:
            clock.now = min(end, clock.now + 0.25)
            report.tick()
    report.end()
    return said


def test_the_first_start_counts_and_the_second_compares(times: StepTimes) -> None:
    assert told(times, [(IMPORTING, 12), ("loading weights", 1)]) == [
        "importing vLLM",
        "importing vLLM: 5 s",
        "importing vLLM: 10 s",
        "loading weights",
    ]
    assert told(times, [(IMPORTING, 17)]) == [
        "importing vLLM",
        "importing vLLM: 5 s of about 12 s",
        "importing vLLM: 10 s of about 12 s",
        "importing vLLM: 15 s, last time 12 s",
    ]
    assert told(times, [(IMPORTING, 6)], "60 MB read from the disk")[1] == (
        "importing vLLM: 5 s of about 17 s, 60 MB read from the disk"
    )


def test_a_step_is_compared_with_the_same_step_of_the_same_engine_but_the_import_is_everyones(times: StepTimes) -> None:
    told(times, [(IMPORTING, 9), ("loading weights", 30)])
    other = StepTimes(times.path, "model b")
    assert (times.last("loading weights"), other.last("loading weights")) == (30, None)
    assert other.last(IMPORTING) == 9
    told(other, [("loading weights", 7)])
    assert (times.last("loading weights"), other.last("loading weights")) == (30, 7)


@given(st.lists(st.tuples(st.sampled_from([IMPORTING, "loading weights", "warming up"]), st.floats(0, 90)), max_size=6))
def test_nobody_waits_long_without_a_word_and_nobody_is_flooded(waits: list[tuple[str, float]]) -> None:
    moments: list[float] = []
    clock = Clock()
    report = StartReport(lambda _: moments.append(clock.now), StepTimes(Path("/nonexistent/times.json")), clock)
    changes, step_before = [], ""
    for step, seconds in waits:
        if step != step_before:
            changes.append(clock.now)
        report.begin(step)
        step_before, end = step, clock.now + seconds
        while clock.now < end:
            clock.now = min(end, clock.now + 0.25)
            report.tick()
    gaps = [after - before for before, after in pairwise([*moments, clock.now])]
    assert all(gap <= EVERY_S + 0.25 for gap in gaps)
    repeats = [moment for moment in moments if moment not in changes]
    assert all(after - before >= EVERY_S for before, after in pairwise(repeats))


def test_a_step_that_somebody_else_began_is_counted_from_its_beginning(times: StepTimes) -> None:
    said: list[str] = []
    clock = Clock()
    report = StartReport(said.append, times, clock)
    report.begin(IMPORTING, ago_s=20)
    clock.now += 6
    report.begin(IMPORTING, ago_s=25.9)  # its clock is a little behind
    report.tick()
    assert said == ["importing vLLM", "importing vLLM: 26 s"]
    report.end()
    assert times.last(IMPORTING) == 26


def test_a_start_that_fails_keeps_no_time_and_a_broken_file_is_as_good_as_none(times: StepTimes) -> None:
    StartReport(lambda _: None, times).begin("loading weights")
    assert times.last("loading weights") is None
    times.path.parent.mkdir()
    for garbage in ("", "[]", '{"importing vLLM": "long"}', "\x00"):
        times.path.write_text(garbage)
        assert times.last(IMPORTING) is None
        times.keep(IMPORTING, 3)
        assert times.last(IMPORTING) == 3
    nowhere = StepTimes(times.path / "below a file" / "times.json")
    nowhere.keep(IMPORTING, 3)
    assert nowhere.last(IMPORTING) is None


def test_the_file_of_times_stays_small(times: StepTimes) -> None:
    for number in range(250):
        StepTimes(times.path, f"model {number}").keep("loading weights", number)
    assert StepTimes(times.path, "model 249").last("loading weights") == 249
    assert StepTimes(times.path, "model 0").last("loading weights") is None
    assert len(json.loads(times.path.read_text())) == 200
    assert [path.name for path in times.path.parent.iterdir()] == [times.path.name], "nothing half-written stays"


def test_one_line_names_a_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = _OneLine("small")
    for step in ("importing vLLM", "importing vLLM: 5 s", "importing vLLM: 10 s", "loading weights", "ready in 12.0 s"):
        line(step)
    assert capsys.readouterr().out == "small: importing vLLM… 5 s… 10 s… loading weights… ready in 12.0 s\n"


INFO = dict.fromkeys(EngineInfo.__slots__, "") | {"log": "log"}


def slow_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, play: Callable[[socket.socket], None]) -> None:
    """Let the next lease come from a host that `play`s its part in a thread, and let five seconds pass in a twentieth."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    monkeypatch.setattr(start_report, "EVERY_S", 0.05)
    monkeypatch.setattr(client, "_TICK_S", 0.01)

    def connect(_linger_s: float, starting: Callable[[], None]) -> socket.socket:
        ours, theirs = socket.socketpair()
        starting()
        ours.setblocking(False)

        def run() -> None:
            with theirs:
                theirs.recv(1 << 16)
                play(theirs)
                theirs.recv(1)  # until the client leaves

        threading.Thread(target=run, daemon=True).start()
        return ours

    monkeypatch.setattr(client, "_connect", connect)


def test_a_slow_host_is_waited_for_with_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    enough = threading.Event()

    def hear(step: str) -> None:
        said.append(step)
        if len(said) >= 8:
            enough.set()

    def play(connection: socket.socket) -> None:
        connection.sendall(encode({"event": "importing", "s": 100, "read": 500_000_000}))
        assert enough.wait(60)
        connection.sendall(encode({"event": "progress", "text": "loading weights"}))
        connection.sendall(encode({"event": "ready", **INFO}))

    slow_host(monkeypatch, tmp_path, play)
    lease = asyncio.run(lease_engine("m", {}, progress=hear))
    lease.close()
    assert said[0] == "importing vLLM"
    assert said[-1] == "loading weights"
    waiting = said[1:-1]
    assert len(waiting) >= 7
    assert all(step.startswith("importing vLLM: ") for step in waiting)
    assert waiting[-1].endswith(" s, 500 MB read from the disk")
    kept = StepTimes(tmp_path / "engines" / "start-times.json").last(IMPORTING)
    assert kept is not None
    assert kept >= 100, "the host knew for how long it had been importing"


def test_what_goes_wrong_while_somebody_waits_is_raised_and_so_is_what_progress_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = {"event": "failed", "kind": "start", "message": "no memory", "log": []}
    slow_host(monkeypatch, tmp_path, lambda connection: connection.sendall(encode(failed)))
    with pytest.raises(EngineStartError, match="no memory"):
        asyncio.run(lease_engine("m", {}))
    assert not (tmp_path / "engines").exists(), "a failed step keeps no time"

    left = threading.Event()

    def play(connection: socket.socket) -> None:
        connection.recv(1)  # nothing is ever said
        left.set()

    def give_up(step: str) -> None:
        if ": " in step:
            raise KeyboardInterrupt(step)

    slow_host(monkeypatch, tmp_path, play)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(lease_engine("m", {}, progress=give_up))
    assert left.wait(60), "the lease is given back"
