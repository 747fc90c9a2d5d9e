"""The engines of a host, from their start to their end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.engines.host.activity import Activity
from labkit.engines.host.arguments import ArgumentCheck, with_defaults
from labkit.engines.host.clients import Client
from labkit.engines.host.door import DOOR
from labkit.engines.host.engine_log import EngineLog
from labkit.engines.host.processes import EngineProcess, checked_port, fork_engine, spawn_engine
from labkit.engines.host.protocol import LeaseRequest

# Seconds between two looks at an engine's counters.
_ACTIVITY_TICK = 15.0


@dataclass(eq=False)
class LeasedEngine:
    """A running engine, the model and arguments it was asked for, and the clients that lease it."""

    model: str
    arguments: dict[str, Any]
    process: EngineProcess
    log: EngineLog
    activity: Activity
    idle_s: float
    ready: bool = False
    clients: list[Client] = field(default_factory=list)
    next_look: float = 0.0

    def lease(self, client: Client, idle_s: float) -> None:
        """Add `client`, which allows the engine `idle_s` seconds without a request; the longest time of all counts."""
        self.idle_s = max(self.idle_s, idle_s)
        self.activity.last = time.monotonic()
        self.clients.append(client)
        client.tell(self._ready() if self.ready else {"event": "progress", "text": "starting the engine"})

    def watch_start(self) -> None:
        """Tell the waiting clients how far the start-up is."""
        if not self.process.serves:
            for text in self.log.new_phases():
                self.tell({"event": "progress", "text": text})
            return
        self.ready = True
        self.activity.last = time.monotonic()
        self.next_look = self.activity.last + min(_ACTIVITY_TICK, self.idle_s / 4)
        self.tell(self._ready())

    def idle(self) -> bool:
        """Whether the engine has served no request for `idle_s` seconds.

        Its counters are read every `_ACTIVITY_TICK` seconds at most; in between, the answer is False.
        """
        now = time.monotonic()
        if now < self.next_look:
            return False
        self.next_look = now + min(_ACTIVITY_TICK, self.idle_s / 4)
        self.activity.look(self.process.port, self.process.place.api_key, now)
        return now - self.activity.last > self.idle_s

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to every client."""
        for client in self.clients:
            client.tell(message)

    def kill(self) -> None:
        """End it. Its clients keep their connections."""
        self.clients.clear()
        self.process.kill()

    def describe(self) -> dict[str, Any]:
        """The fields of `EngineInfo`: a client needs them to use the engine or to list it."""
        return {
            "url": f"http://127.0.0.1:{self.process.port}/v1",
            "api_key": self.process.place.api_key,
            "pid": self.process.pid,
            "host_pid": os.getpid(),
            "log": str(self.process.place.log),
            "model": self.model,
            "arguments": self.arguments,
            "leases": len(self.clients),
            "ready": self.ready,
            "on_cpu": self.process.spawned is None,
        }

    def _ready(self) -> dict[str, Any]:
        return {"event": "ready", **self.describe()}


def engine_key(request: LeaseRequest) -> str:
    """A text that is equal for two requests for the same engine: same model, same age of its files, same arguments."""
    return json.dumps([request.model, _weights_age(request.model), dict(request.arguments)], sort_keys=True)


def start_engine(check: ArgumentCheck, request: LeaseRequest, folder: Path, inherited: Iterable[int]) -> LeasedEngine:
    """Start the engine that `request` asks for, with its own folder in `folder`; a fork closes the `inherited` descriptors.

    Raises `EngineArgumentError` for arguments that vLLM does not take, and `OSError` for a port that is taken.
    """
    arguments = with_defaults(request.model, request.arguments, check.on_cpu)
    port = checked_port(arguments.pop("port", 0))
    # The last middleware is the outermost.
    flags = [*check.flags(request.model, arguments), "--middleware", DOOR]
    process = fork_engine(check.parse(flags), port, folder, inherited) if check.on_cpu else spawn_engine(flags, port, folder)
    log, activity = EngineLog(process.place.log), Activity(time.monotonic())
    return LeasedEngine(request.model, arguments, process, log, activity, request.idle_s)


def _weights_age(model: str) -> int:
    """When the model's files last changed, in ns since 1970: a retrained model is another model. 0 for hub ids."""
    return max((file.stat().st_mtime_ns for file in Path(model).glob("*.*")), default=0) if Path(model).is_dir() else 0
