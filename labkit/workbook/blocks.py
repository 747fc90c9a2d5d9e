"""The KV cache of a live engine, watched while it works: blocks that fill, are shared, freed and preempted.

    engine = await connect(book.engine, model="small", **watchable(fps=10))
    async with watch_blocks(engine) as seen:
        await closed_loop(engine, requests, 8)
    seen.preemptions, seen.peak_usage, seen.rows()

While the body of the `async with` runs, each frame of the engine's own state is drawn as it arrives. After it, the reader
can step through the same frames. The picture draws the frames that `seen` holds, so a run without a browser computes the
same.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display

from labkit.engines import Engine
from labkit.kvcache import BlockFrame, block_frames
from labkit.workbook.charts import PALETTE

_HERE = Path(__file__).parent
# Red is kept for preemptions; grey carries no meaning.
COLOURS = [PALETTE[name] for name in ("blue", "orange", "green", "pink", "sky")]
_KEPT = 300  # frames in a saved notebook
_LAST_FRAME_S = 0.5


@dataclass
class Seen:
    """What was seen of an engine's blocks: `frames` in their order, and figures computed from them.

    Counts cover only the time that was watched. `preemptions` and `finished` come from the engine's own counters, so they
    are complete at any frame rate. The frames' events are complete, too.
    """

    frames: list[BlockFrame] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds from the first frame to the last; 0 without frames."""
        return self.frames[-1].at - self.frames[0].at if self.frames else 0.0

    @property
    def fps(self) -> float | None:
        """Frames a second on average; None for fewer than two."""
        return (len(self.frames) - 1) / self.seconds if self.seconds else None

    @property
    def preemptions(self) -> int:
        """Times that a request lost its blocks."""
        return self._counted("preemptions", "preempted")

    @property
    def finished(self) -> int:
        """Requests that ended."""
        return self._counted("finished", "finished")

    @property
    def peak_usage(self) -> float:
        """The largest share of the blocks held in any frame, 0 to 1."""
        return max((frame.usage for frame in self.frames), default=0.0)

    @property
    def peak_shared(self) -> int:
        """The most blocks that were shared in any frame."""
        return max((len(frame.shared) for frame in self.frames), default=0)

    def rows(self) -> list[dict[str, float]]:
        """One row per frame, for a chart.

        Each row has `seconds` since the first frame; blocks that are `held`, `shared`, `findable` (free, with content that
        the prefix cache would still find) and `free` (without such content); requests `running` and `waiting`; and
        `preemptions` so far.
        """
        return [
            {
                "seconds": frame.at - self.frames[0].at,
                "held": frame.held,
                "shared": len(frame.shared),
                "findable": len(frame.findable),
                "free": frame.free - len(frame.findable),
                "running": len(frame.holders),
                "waiting": frame.num_waiting,
                "preemptions": frame.preemptions - self._before("preemptions", "preempted"),
            }
            for frame in self.frames
        ]

    def summary(self) -> str:
        """What was seen, in a sentence."""
        if not self.frames:
            return "No frame arrived: the engine made no step while it was watched."
        blocks = self.frames[0].num_blocks - 1
        return (
            f"{len(self.frames)} frames in {self.seconds:.1f} s of {blocks} blocks: at most {self.peak_usage:.0%} of them "
            f"held and {self.peak_shared} shared; requests finished: {self.finished}, preemptions: {self.preemptions}."
        )

    def _before(self, counter: str, what: str) -> int:
        # The first frame's counters already include its own events.
        first = self.frames[0]
        before: int = getattr(first, counter) - sum(kind == what for kind, _ in first.events)
        return before

    def _counted(self, counter: str, what: str) -> int:
        return getattr(self.frames[-1], counter) - self._before(counter, what) if self.frames else 0


class BlocksWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """The picture. Live frames arrive as messages and are not kept in its state; a saved notebook keeps `recording`."""

    _esm = _HERE / "blocks.js"
    _css = _HERE / "blocks.css"
    palette = traitlets.List(COLOURS).tag(sync=True)
    alarm = traitlets.Unicode(PALETTE["red"]).tag(sync=True)
    caption = traitlets.Unicode("").tag(sync=True)
    recording = traitlets.Bytes(b"").tag(sync=True)
    start = traitlets.Int(0).tag(sync=True)
    ended = traitlets.Bool(False).tag(sync=True)


@asynccontextmanager
async def watch_blocks(engine: Engine) -> AsyncIterator[Seen]:
    """Show the blocks of `engine` until the body of the `async with` ends.

    The engine must have been started with `labkit.kvcache.watchable`. Raises `InvalidValue` for an engine whose blocks
    cannot be seen from here.
    """
    seen, widget = Seen(), BlocksWidget()
    async with block_frames(engine) as frames:
        shown = display(_mime(widget, "The engine's KV blocks, live."), raw=True, display_id=True)
        following = asyncio.create_task(_follow(frames, seen, widget))
        try:
            yield seen
            await _last_frame(seen, following)
        finally:
            following.cancel()
            await asyncio.wait([following])
            widget.caption = engine.provenance.caption()
            kept = thinned(seen.frames, _KEPT)
            widget.start = _fullest(kept)
            widget.recording = pack(kept)
            widget.ended = True
            if shown is not None:
                shown.update(_mime(widget, seen.summary()), raw=True)


def thinned(frames: Sequence[BlockFrame], most: int) -> list[BlockFrame]:
    """At most `most` (2 or more) of the frames, evenly spaced, with the first and the last among them.

    Each kept frame gets all events since the frame that was kept before it.
    """
    if len(frames) <= most:
        return list(frames)
    kept: list[BlockFrame] = []
    events: list[tuple[str, str]] = []
    chosen = {round(index * (len(frames) - 1) / (most - 1)) for index in range(most)}
    for index, frame in enumerate(frames):
        events += frame.events
        if index in chosen:
            kept.append(replace(frame, events=tuple(events)))
            events = []
    return kept


def pack(frames: Sequence[BlockFrame]) -> bytes:
    """The frames as the picture reads them: JSON, compressed by gzip. Empty for no frames."""
    if not frames:
        return b""
    packer = _Packer()
    return gzip.compress(json.dumps([packer(frame) for frame in frames], separators=(",", ":")).encode(), mtime=0)


class _Packer:
    """Turns frames into the picture's format: short names (see blocks.js), numbered requests, counts from the first frame.

    Requests are numbered from 1 in the order in which they appear.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._colours: dict[str, int] = {}
        self._first: BlockFrame | None = None

    def __call__(self, frame: BlockFrame) -> dict[str, Any]:
        self._first = self._first or frame
        so_far = Seen([self._first, frame])
        self._paint(frame)
        return {
            "t": round(so_far.seconds, 3),
            "n": frame.num_blocks - 1,
            "s": frame.block_size,
            "h": [[self._number(h.id), h.tokens, h.blocks, self._colours[h.id]] for h in frame.holders],
            "w": [[self._number(w.id), self._colours.get(w.id, 0) if w.preempted else None] for w in frame.waiting],
            "nw": frame.num_waiting,
            "f": frame.findable,
            "p": so_far.preemptions,
            "d": so_far.finished,
            "e": [[what, self._number(id)] for what, id in frame.events],
        }

    def _number(self, request: str) -> int:
        return self._numbers.setdefault(request, len(self._numbers) + 1)

    def _paint(self, frame: BlockFrame) -> None:
        """Give each new holder the colour that the fewest requests have now; a request keeps its colour."""
        present = {h.id for h in frame.holders} | {w.id for w in frame.waiting}
        used = Counter(self._colours[id] for id in present if id in self._colours)
        for holder in frame.holders:
            if holder.id not in self._colours:
                self._colours[holder.id] = min(range(len(COLOURS)), key=lambda colour: used[colour])
                used[self._colours[holder.id]] += 1


async def _follow(frames: AsyncIterator[BlockFrame], seen: Seen, widget: BlocksWidget) -> None:
    packer = _Packer()
    async for frame in frames:
        seen.frames.append(frame)
        widget.send({"frame": packer(frame)})


async def _last_frame(seen: Seen, following: asyncio.Task[None]) -> None:
    """Wait for the frame that shows the engine idle, up to half a second: it is made after the last answer was sent."""
    had = len(seen.frames)
    deadline = asyncio.get_running_loop().time() + _LAST_FRAME_S
    while asyncio.get_running_loop().time() < deadline and not following.done():
        if len(seen.frames) > had and seen.frames[-1].idle:
            return
        await asyncio.sleep(0.02)
    if following.done():
        following.result()  # raises the error that ended it


def _fullest(frames: Sequence[BlockFrame]) -> int:
    """Index of the frame to show first: the one with most blocks held, then most events. The last frame is empty."""
    return max(range(len(frames)), key=lambda i: (frames[i].usage, len(frames[i].events)), default=0)


def _mime(widget: BlocksWidget, text: str) -> dict[str, Any]:
    bundle = widget._repr_mimebundle_()
    data: dict[str, Any] = bundle[0] if isinstance(bundle, tuple) else bundle
    return {**data, "text/plain": text}
