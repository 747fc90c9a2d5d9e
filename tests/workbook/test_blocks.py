"""What was seen of the blocks: its counts, its recording, and the picture's numbers and colours for requests."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.kvcache import BlockFrame, Holder, Waiting
from labkit.request import InvalidValue
from labkit.workbook import Seen, blocks, watch_blocks
from labkit.workbook.blocks import COLOURS, BlocksWidget, pack, thinned
from labkit.workbook.charts import PALETTE

SIZE, BLOCKS = 4, 11


def frame(at: float, *tables: tuple[str, int, tuple[int, ...]], **more: Any) -> BlockFrame:
    """A frame of ten blocks of four tokens; what is not said is nothing."""
    holders = tuple(Holder(*table) for table in tables)
    held = {id for holder in holders for id in holder.blocks}
    nothing = {"findable": (), "waiting": (), "steps": 0, "preemptions": 0, "finished": 0, "events": ()}
    values = {**nothing, **more}
    return BlockFrame(
        at, BLOCKS, SIZE, BLOCKS - 1 - len(held), holders=holders, num_waiting=len(values["waiting"]), **values
    )


RUN = [
    frame(50.0, ("x", 5, (1, 2)), preemptions=7, finished=3, events=(("admitted", "x"),)),
    frame(50.5, ("x", 6, (1, 2)), ("y", 7, (1, 3)), preemptions=7, finished=3, events=(("admitted", "y"),)),
    frame(
        51.0,
        ("x", 9, (1, 2, 4)),
        waiting=(Waiting("y", True), Waiting("z", False)),
        findable=(3,),
        preemptions=8,
        finished=3,
        events=(("preempted", "y"),),
    ),
    frame(52.0, preemptions=8, finished=5, findable=(2, 1), events=(("finished", "x"), ("finished", "y"))),
]


def test_what_was_seen_is_counted_from_the_first_frame_on() -> None:
    seen = Seen(list(RUN))
    assert (seen.seconds, seen.fps, seen.preemptions, seen.finished) == (2.0, 1.5, 1, 2)
    assert (seen.peak_usage, seen.peak_shared) == (0.3, 1)
    assert seen.rows()[2] == {
        "seconds": 1.0,
        "held": 3,
        "shared": 0,
        "findable": 1,
        "free": 6,
        "running": 1,
        "waiting": 2,
        "preemptions": 1,
    }
    assert seen.summary() == (
        "4 frames in 2.0 s of 10 blocks: at most 30% of them held and 1 shared; requests finished: 2, preemptions: 1."
    )
    # A first frame that tells of a preemption has counted it already.
    late = Seen(RUN[2:])
    assert (late.preemptions, late.rows()[0]["preemptions"]) == (1, 1)


def test_nothing_seen_is_said_so() -> None:
    assert (Seen().fps, Seen().seconds, Seen().preemptions, Seen().rows(), Seen().peak_usage) == (None, 0.0, 0, [], 0.0)
    assert "no step while it was watched" in Seen().summary()
    assert pack([]) == b""


@given(st.integers(1, 700), st.integers(2, 300))
def test_thinning_keeps_both_ends_and_every_event(count: int, most: int) -> None:
    frames = [frame(float(n), events=(("admitted", str(n)),)) for n in range(count)]
    kept = thinned(frames, most)
    assert len(kept) == min(count, most)
    assert (kept[0].at, kept[-1].at) == (0.0, float(count - 1))
    assert [event for one in kept for event in one.events] == [("admitted", str(n)) for n in range(count)]
    gaps = [b.at - a.at for a, b in pairwise(kept)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_picture_gets_numbers_for_names_and_counts_from_the_first_frame() -> None:
    packed = json.loads(gzip.decompress(pack(RUN)))
    assert packed[2] == {
        "t": 1.0,
        "n": 10,
        "s": 4,
        "h": [[1, 9, [1, 2, 4], 0]],
        "w": [[2, 1], [3, None]],  # the preempted one keeps its colour, the new one has none yet
        "nw": 2,
        "f": [3],
        "p": 1,
        "d": 0,
        "e": [["preempted", 2]],
    }
    assert [one["t"] for one in packed] == [0.0, 0.5, 1.0, 2.0]


@given(st.lists(st.sets(st.integers(0, 15), max_size=9), min_size=1, max_size=12))
def test_a_request_keeps_its_colour_and_newcomers_share_colours_evenly(present: list[set[int]]) -> None:
    frames = [frame(float(t), *((f"r{n}", 1, (1,)) for n in sorted(names))) for t, names in enumerate(present)]
    packed = json.loads(gzip.decompress(pack(frames)))
    colours: dict[int, set[int]] = {}
    for one in packed:
        for number, _, _, colour in one["h"]:
            colours.setdefault(number, set()).add(colour)
    assert all(len(found) == 1 for found in colours.values())
    first = Counter(colour for *_, colour in packed[0]["h"])
    assert max(first.values(), default=0) <= math.ceil(len(packed[0]["h"]) / len(COLOURS))


def test_a_saved_notebook_stays_small_whatever_was_seen() -> None:
    # Two thousand blocks, all held, another request's in each frame: more than any engine does.
    busy = [
        BlockFrame(
            n / 10,
            2000,
            32,
            0,
            (),
            tuple(Holder(f"chatcmpl-{(n * 7 + r) % 500}", 640, tuple(range(1 + r * 20, 21 + r * 20))) for r in range(99)),
            (),
            0,
            n,
            0,
            0,
            (("admitted", f"chatcmpl-{n}"),),
        )
        for n in range(2000)
    ]
    assert len(pack(thinned(busy, blocks._KEPT))) < 1 << 20


class Shown:
    """A notebook's output, which remembers what is shown in it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, data: dict[str, Any], **_: Any) -> Shown:
        self.update(data)
        return self

    def update(self, data: dict[str, Any], **_: Any) -> None:
        assert "application/vnd.jupyter.widget-view+json" in data
        self.texts.append(data["text/plain"])


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine that sends RUN's frames, the last one after the work has ended; and what was shown of it."""
    working = asyncio.Event()

    @asynccontextmanager
    async def fake(_: Any) -> AsyncIterator[AsyncIterator[BlockFrame]]:
        async def frames() -> AsyncIterator[BlockFrame]:
            for one in RUN[:-1]:
                yield one
            await working.wait()
            await asyncio.sleep(0.05)
            yield RUN[-1]

        yield frames()

    shown, widgets = Shown(), []
    made = BlocksWidget.__init__

    def remember(self: BlocksWidget) -> None:
        made(self)
        self.messages = []
        self.send = self.messages.append
        widgets.append(self)

    monkeypatch.setattr(blocks, "block_frames", fake)
    monkeypatch.setattr(blocks, "display", shown)
    monkeypatch.setattr(BlocksWidget, "__init__", remember)
    provenance = SimpleNamespace(caption=lambda: "a live engine")
    return SimpleNamespace(provenance=provenance, working=working, shown=shown, widgets=widgets)


def test_frames_are_shown_as_they_come_and_kept_with_the_last_one(engine: Any) -> None:
    async def work() -> Seen:
        async with watch_blocks(engine) as seen:
            await asyncio.sleep(0.05)
            assert len(seen.frames) == 3
            engine.working.set()
        return seen

    seen = asyncio.run(work())
    (widget,) = engine.widgets
    assert seen.frames == RUN, "the frame in which the engine falls idle comes after the work"
    assert json.loads(json.dumps([message["frame"] for message in widget.messages])) == json.loads(
        gzip.decompress(widget.recording)
    )
    assert (widget.ended, widget.caption) == (True, "a live engine")
    assert widget.start == 1, "the fullest frame that comes first"
    assert engine.shown.texts == ["The engine's KV blocks, live.", seen.summary()]


def test_work_that_fails_leaves_what_was_seen(engine: Any) -> None:
    async def work() -> None:
        async with watch_blocks(engine):
            await asyncio.sleep(0.05)
            raise InvalidValue("no such model")

    with pytest.raises(InvalidValue, match="no such model"):
        asyncio.run(work())
    (widget,) = engine.widgets
    assert widget.ended
    assert len(json.loads(gzip.decompress(widget.recording))) == 3


def test_the_colours_are_the_charts_own_and_red_is_left_for_preemptions() -> None:
    assert set(COLOURS) < set(PALETTE.values())
    assert PALETTE["red"] not in COLOURS
    assert BlocksWidget().alarm == PALETTE["red"]
