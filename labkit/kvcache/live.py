"""The blocks of a live vLLM as it runs: frames of its scheduler's own state, several per second.

    engine = await connect("vllm", "small", **watchable(fps=10))
    async with block_frames(engine) as frames:
        async for frame in frames:
            frame.usage, frame.shared, frame.preemptions, …

The engine makes frames only while a reader is connected (`labkit.engines.host.block_frames`). Any number of notebooks that
share an engine may watch it independently. An idle engine sends nothing until its next step.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.engines import Engine
from labkit.engines.host import BLOCK_FRAMES, SCHEDULER, SOCKET_NAME
from labkit.kvcache.allocator import BlockView
from labkit.request import EngineError, InvalidValue

_LONGEST_LINE = 1 << 26  # bytes; a frame of a million blocks is a tenth of it


@dataclass(frozen=True, slots=True)
class Holder:
    """A request that holds blocks: the number of its tokens in them after the step, and the block ids in token order."""

    id: str
    tokens: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits to run; `preempted` if it ran before and lost its blocks."""

    id: str
    preempted: bool


@dataclass(frozen=True)
class BlockFrame:
    """The KV cache of a live engine at one moment, just after a step was scheduled.

    `at` is in seconds of the monotonic clock of the engine's machine. `num_blocks` is as vLLM reports it: one of them, the
    null block 0, is never handed out. `free` is the pool's own count of free blocks. `findable` are the free blocks whose
    content the prefix cache would still find, the next to be handed out first. `num_waiting` may be more than `waiting`
    lists. `steps`, `preemptions` and `finished` count from the engine's start. `events` are those since the last frame:
    pairs of "admitted", "resumed", "preempted" or "finished" and the id of a request.
    """

    at: float
    num_blocks: int
    block_size: int
    free: int
    findable: tuple[int, ...]
    holders: tuple[Holder, ...]
    waiting: tuple[Waiting, ...]
    num_waiting: int
    steps: int
    preemptions: int
    finished: int
    events: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, line: str | bytes) -> BlockFrame:
        """The frame in a line that the engine sent. Raises `InvalidValue` for anything else."""
        try:
            entry = json.loads(line)
            return cls(
                at=float(entry["t"]),
                num_blocks=int(entry["num_blocks"]),
                block_size=int(entry["block_size"]),
                free=int(entry["free"]),
                findable=tuple(entry["findable"]),
                holders=tuple(Holder(str(id), int(tokens), tuple(ids)) for id, tokens, ids in entry["holders"]),
                waiting=tuple(Waiting(str(id), bool(preempted)) for id, preempted in entry["waiting"]),
                num_waiting=int(entry["num_waiting"]),
                steps=int(entry["steps"]),
                preemptions=int(entry["preemptions"]),
                finished=int(entry["finished"]),
                events=tuple((str(what), str(id)) for what, id in entry["events"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            shown = line[:80]
            raise InvalidValue(f"{shown!r} is no block frame ({error!r}); watch an engine of this labkit") from error

    @cached_property
    def blocks(self) -> tuple[BlockView, ...]:
        """Every block but the null block, by id: its holders, the tokens in it, and whether it is findable.

        A held block is always given as not findable, because the frame does not tell; in truth a full one can be found where
        the prefix cache is on.
        """
        holders: dict[int, list[str]] = {}
        filled: dict[int, int] = {}
        for holder in self.holders:
            for index, id in enumerate(holder.blocks):
                if id:  # the null block 0 stands in for blocks that a sliding window has left
                    holders.setdefault(id, []).append(holder.id)
                    filled[id] = max(0, min(self.block_size, holder.tokens - index * self.block_size))
        findable = set(self.findable)
        return tuple(
            BlockView(
                id, tuple(holders.get(id, ())), filled.get(id, self.block_size if id in findable else 0), id in findable
            )
            for id in range(1, self.num_blocks)
        )

    @property
    def held(self) -> int:
        """The number of blocks that requests hold."""
        return self.num_blocks - 1 - self.free

    @property
    def usage(self) -> float:
        """The share of the blocks that requests hold, 0 to 1; the same as vLLM's own `kv_cache_usage_perc`."""
        return self.held / (self.num_blocks - 1)

    @property
    def shared(self) -> tuple[BlockView, ...]:
        """Blocks that more than one request holds."""
        return tuple(block for block in self.blocks if block.references > 1)

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return not self.holders and not self.num_waiting


def watchable(fps: float = 10, **additional_config: Any) -> dict[str, Any]:
    """Engine arguments for `connect` that make an engine's blocks watchable, with at most `fps` frames per second.

    `additional_config` are further entries of vLLM's argument of that name. Calls of `connect` with equal arguments share an
    engine, and so its frames. Raises `InvalidValue` for an `fps` that is not above 0 and at most 60.
    """
    if not 0 < fps <= 60:
        raise InvalidValue(f"{fps:g} frames a second; use a rate above 0 and at most 60")
    return {"scheduler_cls": SCHEDULER, "additional_config": {**additional_config, BLOCK_FRAMES: {"fps": fps}}}


@asynccontextmanager
async def block_frames(engine: Engine) -> AsyncIterator[AsyncIterator[BlockFrame]]:
    """Connect to the frames of `engine`; they end when the engine ends.

    Raises `InvalidValue` for an engine whose blocks cannot be watched from here, and `EngineError` where it has stopped.
    """
    if engine.log is None:
        raise InvalidValue(
            f"the blocks of a {engine.provenance.kind} engine cannot be watched; connect to engine='vllm' on this machine"
        )
    await engine.metrics()  # starts an engine again that was stopped as idle; its folder is new then
    path = engine.log.with_name(SOCKET_NAME)
    if not path.exists():
        raise InvalidValue(f"{engine.model} shows no blocks; start it with connect(…, **watchable())")
    async with frames_at(path) as frames:
        yield frames


@asynccontextmanager
async def frames_at(path: Path) -> AsyncIterator[AsyncIterator[BlockFrame]]:
    """The frames that an engine sends at the socket `path`. Raises `EngineError` where no engine listens there."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE)
    except OSError as error:
        raise EngineError(f"no engine shows its blocks at {path} ({error.strerror}); connect to it again") from error
    try:
        yield _frames(reader)
    finally:
        writer.close()


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[BlockFrame]:
    # A line without its end comes from an engine that was killed while it wrote.
    while (line := await reader.readline()).endswith(b"\n"):
        yield BlockFrame.parse(line)
