"""Sends the state of a running vLLM's KV blocks to its watchers, a few times a second.

Start the engine with `labkit.engines.host.scheduler.SCHEDULER` and `additional_config={"labkit_blocks": {"fps": 10}}`. It
then listens on a Unix socket, `blocks` in the engine's own folder (or in the folder `"path"`, if that is given), and sends a
line of JSON, a *frame*, to each connection, at most `fps` times a second::

    {"t": seconds of time.monotonic, "num_blocks": n, "block_size": tokens, "free": n, "findable": [id, …],
     "holders": [[request, tokens, [block id, …]], …], "waiting": [[request, preempted before?], …], "num_waiting": n,
     "steps": n, "preemptions": n, "finished": n, "events": [[what, request], …]}

All of it is the scheduler's own state just after it has put a step together: `tokens` are in the cache once that step has
run. `findable` are free blocks whose content the prefix cache would still find, in the order in which they are reused; block
0 is vLLM's placeholder and is never among them. The counters count from the engine's start. `events` are those since the
frame before ("admitted", "resumed", "preempted" or "finished"), so that none is lost between two frames. When the engine
becomes idle it sends a frame whatever the rate: no request waits for it then, and watchers keep this last state.

Without watchers no frame is made: the engine looks at its clock once a step, and writes nothing. Frames of a large cache
take longer to make, so they come further apart: they cost the scheduler's thread at most `_SHARE` of its time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from labkit.request import InvalidValue

CONFIG_KEY = "labkit_blocks"
FOLDER_VARIABLE = "LABKIT_ENGINE_DIR"
SOCKET_NAME = "blocks"
_SHARE = 0.02
_WATCHERS = 8
_WAITING_SHOWN = 200
_UNREAD = 4 << 20  # bytes; a watcher that is further behind has stopped reading
_LAST_WORD_S = 0.2


def observer(vllm_config: Any) -> BlockFrames | None:
    """The sender of the engine's block frames; None for an engine without. Raises `InvalidValue` without a folder for it."""
    config = vllm_config.additional_config
    chosen = config.get(CONFIG_KEY) if isinstance(config, dict) else None
    if chosen is None:
        return None
    folder = chosen.get("path") or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise InvalidValue(f"the block frames have no place; pass {{{CONFIG_KEY!r}: {{'path': folder}}}}")
    return BlockFrames(Path(folder) / SOCKET_NAME, float(chosen.get("fps", 10)))


@dataclass
class _Watcher:
    connection: socket.socket
    unsent: bytes = b""


class BlockFrames:
    """Sends frames of a scheduler's blocks to every connection to `path`, at most `fps` a second."""

    def __init__(self, path: Path, fps: float) -> None:
        if not 0 < fps <= 60:
            raise InvalidValue(f"{fps:g} frames a second; use a rate above 0 and at most 60")
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(_WATCHERS)
        self._listener.setblocking(False)
        self._watchers: list[_Watcher] = []
        self._period = 1 / fps
        self._due = 0.0
        self._steps = self._preemptions = self._finished = 0
        self._events: list[tuple[str, str]] = []

    def observe(self, scheduler: Any, output: Any) -> None:
        """Count the step, and send a frame if one is due."""
        self._steps += 1
        self._finished += len(output.finished_req_ids)
        self._preemptions += len(output.preempted_req_ids or ())
        now = time.monotonic()
        idle = not scheduler.running and not scheduler.waiting
        due = now >= self._due or idle
        if due:
            self._accept()
            # A frame that is late by less than one period does not delay the frames after it.
            late = 0 <= now - self._due < self._period
            self._due = (self._due if late else now) + self._period
        if not self._watchers:
            return
        self._note(output)
        if due:
            began = time.thread_time()  # not wall time: the time of other processes is not a cost
            line = json.dumps(self._frame(scheduler, now), separators=(",", ":")).encode() + b"\n"
            self._events = []
            self._watchers = [watcher for watcher in self._watchers if _send(watcher, line, idle)]
            self._due = max(self._due, now + (time.thread_time() - began) / _SHARE)

    def close(self) -> None:
        """Close the connections and the listener."""
        for watcher in self._watchers:
            watcher.connection.close()
        self._listener.close()

    def _note(self, output: Any) -> None:
        self._events += [("finished", id) for id in sorted(output.finished_req_ids)]
        self._events += [("preempted", id) for id in sorted(output.preempted_req_ids or ())]
        self._events += [("resumed", id) for id in sorted(output.scheduled_cached_reqs.resumed_req_ids)]
        self._events += [("admitted", new.req_id) for new in output.scheduled_new_reqs]

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._watchers) < _WATCHERS:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._watchers.append(_Watcher(connection))

    def _frame(self, scheduler: Any, now: float) -> dict[str, Any]:
        manager = scheduler.kv_cache_manager
        pool = manager.block_pool
        # A request may hold blocks while it waits, for a grammar or for a KV cache from elsewhere.
        holding = [*scheduler.running, *scheduler.kv_holding_waiting]
        return {
            "t": now,
            "num_blocks": pool.num_gpu_blocks,
            "block_size": scheduler.kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size,
            "free": pool.get_num_free_blocks(),
            "findable": _findable(pool),
            "holders": [
                [request.request_id, request.num_computed_tokens, _block_ids(manager, request.request_id)]
                for request in holding
            ],
            "waiting": [[r.request_id, r.num_preemptions > 0] for r in islice(scheduler.waiting, _WAITING_SHOWN)],
            "num_waiting": len(scheduler.waiting),
            "steps": self._steps,
            "preemptions": self._preemptions,
            "finished": self._finished,
            "events": self._events,
        }


def _block_ids(manager: Any, request: str) -> list[int]:
    """The request's blocks, group of layers by group, in the order of its tokens; 0 where a sliding window has moved on."""
    groups = manager.get_block_ids(request)
    return groups[0] if len(groups) == 1 else [id for group in groups for id in group]


def _findable(pool: Any) -> list[int]:
    queue = pool.free_block_queue
    block, found = queue.fake_free_list_head.next_free_block, []
    while block is not None and block.next_free_block is not None:  # the queue's last element is a sentinel
        if block._block_hash is not None:
            found.append(block.block_id)
        block = block.next_free_block
    return found


def _send(watcher: _Watcher, line: bytes, idle: bool) -> bool:
    """Send as much as the socket takes and keep the rest for the next frame. Returns whether the watcher is still there."""
    data = watcher.unsent + line
    try:
        if idle:
            # The next frame may be a long time off.
            watcher.connection.settimeout(_LAST_WORD_S)
            watcher.connection.sendall(data)
            watcher.connection.setblocking(False)
            sent = len(data)
        else:
            sent = watcher.connection.send(data)
    except BlockingIOError:
        sent = 0
    except OSError:  # gone, or idle and not reading
        watcher.connection.close()
        return False
    watcher.unsent = data[sent:]
    if len(watcher.unsent) > _UNREAD:
        watcher.connection.close()
        return False
    return True
