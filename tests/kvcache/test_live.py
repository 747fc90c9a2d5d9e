"""Block frames: how the engine makes them, how they are read, and what must hold in each of a live vLLM's."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.engines import connect
from labkit.engines.host import block_frames as made
from labkit.engines.host.block_frames import BlockFrames
from labkit.engines.host.step_log import CONFIG_KEY, read_step_log
from labkit.kvcache import BlockFrame, BlockView, block_frames, watchable
from labkit.kvcache.live import frames_at
from labkit.load import ExactLengths, closed_loop
from labkit.request import EngineError, InvalidValue, Message, Request

LINE = {
    "t": 5.0,
    "num_blocks": 9,
    "block_size": 4,
    "free": 4,
    "findable": [6, 7],
    "holders": [["a", 10, [1, 2, 3]], ["b", 8, [1, 2]], ["c", 6, [0, 5]]],
    "waiting": [["d", True]],
    "num_waiting": 3,
    "steps": 12,
    "preemptions": 1,
    "finished": 2,
    "events": [["preempted", "d"]],
}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix="lkb-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


class Pool:
    """As much of vLLM's scheduler as a frame is made of: four blocks, of which requests hold the first ones."""

    def __init__(self) -> None:
        tail = SimpleNamespace(next_free_block=None, _block_hash=None, block_id=-1)
        found = SimpleNamespace(next_free_block=tail, _block_hash=b"x", block_id=3)
        queue = SimpleNamespace(fake_free_list_head=SimpleNamespace(next_free_block=found))
        pool = SimpleNamespace(num_gpu_blocks=4, get_num_free_blocks=lambda: 2, free_block_queue=queue)
        self.kv_cache_manager = SimpleNamespace(block_pool=pool, get_block_ids=lambda request: ([1],))
        group = SimpleNamespace(kv_cache_spec=SimpleNamespace(block_size=32))
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=[group])
        self.kv_holding_waiting: list[Any] = []
        self.running = [SimpleNamespace(request_id="r", num_computed_tokens=7)]
        self.waiting = [SimpleNamespace(request_id="w", num_preemptions=1)]


def step(finished: tuple[str, ...] = (), preempted: tuple[str, ...] = (), new: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        finished_req_ids=set(finished),
        preempted_req_ids=set(preempted),
        scheduled_cached_reqs=SimpleNamespace(resumed_req_ids=set()),
        scheduled_new_reqs=[SimpleNamespace(req_id=id) for id in new],
    )


class Clock:
    """The engine's clock, moved by hand; making a frame takes `cost` seconds of its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float = 0.0) -> None:
        self.now, self.cost, self.spent = 100.0, cost, 0.0
        monkeypatch.setattr(made, "time", SimpleNamespace(monotonic=lambda: self.now, thread_time=self.thread_time))

    def thread_time(self) -> float:
        self.spent += self.cost
        return self.spent


def watcher(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    connection.settimeout(5)
    return connection


def received(connection: socket.socket) -> list[BlockFrame]:
    connection.setblocking(False)
    data = b""
    try:
        while more := connection.recv(1 << 20):
            data += more
    except BlockingIOError:
        pass
    return [BlockFrame.parse(line) for line in data.splitlines()]


def test_frames_come_at_the_rate_and_lose_no_event(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pool, frames = Clock(monkeypatch), Pool(), BlockFrames(short / "s", fps=10)
    first, second = watcher(short / "s"), watcher(short / "s")
    for number in range(100):  # a step every 15 ms, each with its own request
        frames.observe(pool, step(new=(f"n{number}",), preempted=(f"p{number}",)))
        clock.now += 0.015
    got = received(first)
    assert got == received(second), "any number may watch"
    assert len(got) == 15, "1.5 s at 10 a second"
    gaps = [b.at - a.at for a, b in pairwise(got)]
    assert min(gaps) >= 0.085, "a late frame may make the next gap shorter, by less than a step"
    for i, frame in enumerate(got):
        told = [event for earlier in got[: i + 1] for event in earlier.events]
        assert told == [event for n in range(frame.steps) for event in (("preempted", f"p{n}"), ("admitted", f"n{n}"))]
        assert frame.preemptions == frame.steps
    frames.close()


def test_an_engine_that_falls_idle_says_so_at_once(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool, frames = Clock(monkeypatch), Pool(), BlockFrames(short / "s", fps=10)
    connection = watcher(short / "s")
    frames.observe(pool, step())
    pool.running, pool.waiting = [], []
    frames.observe(pool, step(finished=("r", "w")))
    assert [(frame.idle, frame.finished, len(frame.events)) for frame in received(connection)] == [
        (False, 0, 0),
        (True, 2, 2),
    ]


def test_nothing_is_made_for_nobody(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pool, frames = Clock(monkeypatch), Pool(), BlockFrames(short / "s", fps=10)
    monkeypatch.setattr(pool.kv_cache_manager, "get_block_ids", None)  # making a frame would raise
    for _ in range(50):
        frames.observe(pool, step(preempted=("x",)))
        clock.now += 0.05
    monkeypatch.undo()
    clock = Clock(monkeypatch)
    pool, clock.now = Pool(), 200.0
    connection = watcher(short / "s")
    frames.observe(pool, step())
    assert [(frame.steps, frame.preemptions, frame.events) for frame in received(connection)] == [(51, 50, ())]
    connection.close()
    for _ in range(2):
        clock.now += 1
        frames.observe(pool, step())
    assert frames._watchers == [], "who hung up is forgotten"


def test_frames_that_are_dear_come_further_apart(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pool, frames = Clock(monkeypatch, cost=0.01), Pool(), BlockFrames(short / "s", fps=10)
    connection = watcher(short / "s")
    for _ in range(400):
        frames.observe(pool, step())
        clock.now += 0.01
    got = received(connection)
    assert len(got) * 0.01 / 4 == pytest.approx(made._SHARE, rel=0.1), "4 s, of which frames took their share"


def test_a_watcher_that_does_not_read_is_hung_up_on_and_the_others_stay(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "_UNREAD", 10_000)
    clock, pool, frames = Clock(monkeypatch), Pool(), BlockFrames(short / "s", fps=10)
    asleep, awake = watcher(short / "s"), watcher(short / "s")
    pool.waiting = [SimpleNamespace(request_id="w" * 500, num_preemptions=0)] * 100
    seen: list[BlockFrame] = []
    for _ in range(40):
        frames.observe(pool, step())
        clock.now += 0.1
        seen += _whole(awake)
    assert len(frames._watchers) == 1
    assert len(seen) == 40
    assert asleep.recv(1 << 16), "what had been sent is still there to read"


def _whole(connection: socket.socket) -> list[BlockFrame]:
    data = b""
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 20)
    return [BlockFrame.parse(line) for line in data.splitlines()]


def test_a_frame_says_who_holds_what_and_how_full_it_is() -> None:
    frame = BlockFrame.parse(json.dumps(LINE))
    assert frame.blocks == (
        BlockView(1, ("a", "b"), 4, False),
        BlockView(2, ("a", "b"), 4, False),
        BlockView(3, ("a",), 2, False),
        BlockView(4, (), 0, False),
        BlockView(5, ("c",), 2, False),  # its first four tokens slid out of the window, and block 0 stands for them
        BlockView(6, (), 4, True),
        BlockView(7, (), 4, True),
        BlockView(8, (), 0, False),
    )
    assert [block.id for block in frame.shared] == [1, 2]
    assert (frame.held, frame.usage, frame.idle) == (4, 0.5, False)


@pytest.mark.parametrize("line", ["", "{}", "[1]", json.dumps({**LINE, "holders": [["a", 1]]}), json.dumps(LINE)[:50]])
def test_what_is_no_frame_is_refused_by_its_first_words(line: str) -> None:
    with pytest.raises(InvalidValue, match="is no block frame"):
        BlockFrame.parse(line)


def test_a_line_that_an_engine_could_not_end_is_left_out(short: Path) -> None:
    async def engine(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = json.dumps(LINE).encode()
        writer.write(whole + b"\n" + whole[:40])
        writer.close()

    async def watch() -> list[BlockFrame]:
        async with await asyncio.start_unix_server(engine, short / "s"), frames_at(short / "s") as frames:
            return [frame async for frame in frames]

    assert asyncio.run(watch()) == [BlockFrame.parse(json.dumps(LINE))]


def test_an_engine_that_cannot_be_watched_is_named_with_the_fix(short: Path) -> None:
    async def watch(engine: Any) -> None:
        async with block_frames(engine):
            pass

    async def no_metrics() -> None:
        pass

    replay = SimpleNamespace(log=None, provenance=SimpleNamespace(kind="recorded"))
    with pytest.raises(InvalidValue, match="blocks of a recorded engine cannot be watched; connect to engine='vllm'"):
        asyncio.run(watch(replay))
    plain = SimpleNamespace(log=short / "log", metrics=no_metrics, model="small")
    with pytest.raises(InvalidValue, match=r"small shows no blocks; start it with connect\(…, \*\*watchable\(\)\)"):
        asyncio.run(watch(plain))
    (short / "blocks").touch()
    with pytest.raises(EngineError, match=r"no engine shows its blocks at .*connect to it again"):
        asyncio.run(watch(plain))
    with pytest.raises(InvalidValue, match="0 frames a second; use a rate above 0"):
        watchable(fps=0)


@pytest.mark.live
@pytest.mark.timeout(300)
def test_every_frame_of_a_live_engine_adds_up(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    log, blocks = tmp_path / "steps", 40

    async def serve() -> tuple[list[BlockFrame], float]:
        # A frame a step, nearly: the busiest moments are where a rule would break.
        arguments = watchable(fps=60, **{CONFIG_KEY: str(log)})
        small = {"num_gpu_blocks_override": blocks, "block_size": 32, "max_model_len": 512}
        async with await connect("vllm", "small", linger_s=0, **small, **arguments) as engine:
            make = ExactLengths(str(engine.tokenizer_path), 3)
            first = make(150, 1)
            words = first.messages[0].content
            again = [Request((Message("user", f"{words} {n}"),), max_tokens=120, extra=first.extra) for n in range(8)]
            async with block_frames(engine) as frames:
                seen: list[BlockFrame] = []

                async def read() -> None:
                    async for frame in frames:
                        seen.append(frame)
                        if frame.finished == 16:
                            return

                reading = asyncio.create_task(read())
                before = await engine.metrics()
                run = await closed_loop(engine, [*again, *(make(40 + 20 * n, 200) for n in range(8))], 8)
                assert [sample.error for sample in run.samples if sample.error] == []
                await reading
                return seen, (await engine.metrics() - before).preemptions or 0

    frames, counted = asyncio.run(asyncio.wait_for(serve(), 250))
    for frame in frames:
        owned = Counter("held" if b.holders else "findable" if b.findable else "free" for b in frame.blocks)
        assert owned["held"] == frame.held, "what requests hold is what the pool has given away"
        assert owned.total() == blocks - 1 == frame.num_blocks - 1
        assert owned["findable"] == len(set(frame.findable)) <= frame.free
        assert not {b.id for b in frame.blocks if b.holders} & set(frame.findable)
        for holder in frame.holders:
            assert len(holder.blocks) == len(set(holder.blocks)) == math.ceil(holder.tokens / 32), holder
        assert not {h.id for h in frame.holders} & {w.id for w in frame.waiting}
    assert max(len(frame.shared) for frame in frames) >= 4, "150 equal tokens are four whole blocks"
    told = Counter(event for frame in frames for event in frame.events)
    logged = Counter(id for logged in read_step_log(log) for id in logged.preempted)
    assert {id: n for (what, id), n in told.items() if what == "preempted"} == logged
    assert logged.total() == counted == frames[-1].preemptions > 0
    assert sum(n for (what, _), n in told.items() if what == "admitted") == frames[-1].finished == 16
    assert {w.id for frame in frames for w in frame.waiting if w.preempted} <= set(logged)
    assert frames[-1].held == 0
