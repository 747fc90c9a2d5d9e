"""The client's end of a lease."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit.engines.errors import EngineArgumentError, EngineStartError
from labkit.engines.host.environment import host_environment
from labkit.engines.host.failures import start_error
from labkit.engines.host.protocol import (
    LONGEST_ANSWER,
    LONGEST_LINE,
    LeaseRequest,
    Lines,
    ListRequest,
    Malformed,
    PrepareRequest,
)
from labkit.engines.host.runtime import runtime_dir, socket_path
from labkit.engines.host.start_report import IMPORTING, StartReport, StepTimes, kept_folder

Progress = Callable[[str], None]

LINGER_S = 600.0
"""Seconds for which a host waits for another engine: long enough to get from one chapter to the next.

It holds some 500 MiB meanwhile, and the next engine is there in a few seconds.
"""
_TICK_S = 0.25
_WORTH_TELLING = 20 << 20  # bytes read from the disk


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A running engine: its OpenAI base URL and key, its processes, its log and the arguments it was started with."""

    url: str
    api_key: str = field(repr=False)
    pid: int
    host_pid: int
    log: Path
    model: str
    arguments: Mapping[str, Any]
    leases: int
    ready: bool
    on_cpu: bool

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> EngineInfo:
        """From the host's message."""
        values = {name: message[name] for name in cls.__slots__}
        return cls(**{**values, "log": Path(values["log"])})


class Lease:
    """The right to an engine for as long as this object, and the process that holds it, lives."""

    def __init__(self, info: EngineInfo, connection: socket.socket) -> None:
        self.info = info
        self._connection = connection

    @property
    def alive(self) -> bool:
        """Whether the engine still runs; costs one system call."""
        # The host sends nothing to a client with a running engine: anything readable means that engine or host ended.
        return self._connection.fileno() >= 0 and not select.select([self._connection], [], [], 0)[0]

    def end(self) -> str:
        """Why an engine that is no longer alive ended, with its last log line where there is one."""
        try:
            messages = list(_messages(Lines(LONGEST_ANSWER), self._connection.recv(1 << 16)))
        except OSError:
            messages = []
        if not messages:
            return "its host ended"
        last = messages[-1]
        return ": ".join([last.get("reason", "it ended"), *last.get("log", [])[-1:]])

    def close(self) -> None:
        """Give the engine back; without other leases the host kills it at once."""
        self._connection.close()


async def lease_engine(
    model: str,
    arguments: Mapping[str, Any],
    *,
    progress: Progress = lambda _: None,
    idle_s: float = 1200.0,
    linger_s: float = LINGER_S,
) -> Lease:
    """Attach to the engine that serves `model` with `arguments`; the host and the engine are started where they do not run.

    `model` is a folder or a hub id; `arguments` are vLLM's. `progress` is called with each step of the start-up, and every
    few seconds with how long it has taken and how long it took last time. The engine stops when it has served no request for
    `idle_s` seconds. `linger_s` is for how many seconds a host that is started here outlives its last lease.

    Raises `EngineArgumentError` for arguments that vLLM does not take, `EngineStartError` when the engine does not come up.
    """
    try:
        message = LeaseRequest(model, arguments, idle_s).encode()
    except (TypeError, ValueError) as error:
        raise EngineArgumentError(f"the engine arguments {dict(arguments)!r} cannot be told to vLLM: {error}") from error
    if len(message) > LONGEST_LINE:
        raise EngineArgumentError(
            f"the engine arguments have {len(message)} bytes, at most {LONGEST_LINE}: give files by path"
        )
    asked_for = f"{model} {json.dumps(dict(arguments), sort_keys=True)}"
    report = StartReport(progress, StepTimes(kept_folder() / "start-times.json", asked_for))
    for _ in range(3):
        lease = await _telling(report, _lease(message, model, report, linger_s))
        if lease is not None:
            return lease
    raise EngineStartError(f"the engine host ended three times while it was starting; its log is {_host_log()}")


async def running_engines() -> list[EngineInfo]:
    """The engines of this user's host for this Python environment and version of the code; none when no host runs."""
    answer = await _listed()
    return [EngineInfo.parse(engine) for engine in answer["engines"]] if answer else []


async def running_host() -> int | None:
    """The pid of that host, which may have no engine at the moment; None when no host runs."""
    answer = await _listed()
    return int(answer["host_pid"]) if answer else None


def start_host(linger_s: float = LINGER_S) -> None:
    """Have a host import vLLM in the background, where none runs. Returns at once, says nothing, and raises nothing.

    The host ends where this process ends before the import does; after that it waits `linger_s` seconds for an engine to be
    asked of it. What goes wrong is told when an engine is asked for.
    """
    threading.Thread(target=_prepare_host, args=(linger_s,), name="labkit-start-host", daemon=True).start()


def _prepare_host(linger_s: float) -> None:
    with contextlib.suppress(Exception), _connect(linger_s, lambda: None) as connection:
        connection.setblocking(True)
        connection.sendall(PrepareRequest().encode())
        lines = Lines(LONGEST_ANSWER)
        while data := connection.recv(65536):
            if any(message["event"] == "prepared" for message in _messages(lines, data)):
                return


async def _listed() -> dict[str, Any] | None:
    """The host's answer to a `ListRequest`; None when no host runs."""
    connection = _try_connect(socket_path())
    if connection is None:
        return None
    loop, lines = asyncio.get_running_loop(), Lines(LONGEST_ANSWER)
    with connection:
        await loop.sock_sendall(connection, ListRequest().encode())
        while data := await loop.sock_recv(connection, 65536):
            for message in _messages(lines, data):
                if message["event"] == "engines":
                    return message
    return None


async def _telling(report: StartReport, work: Coroutine[Any, Any, Lease | None]) -> Lease | None:
    """The result of `work`; `report` is called every moment until it is there."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_TICK_S))[0]:
            report.tick()
    finally:
        task.cancel()
        await asyncio.wait({task})
    return task.result()


async def _lease(request: bytes, model: str, report: StartReport, linger_s: float) -> Lease | None:
    """The lease once the engine serves; None when the host went away first, so that a new host is worth a try."""
    connection = await asyncio.to_thread(_connect, linger_s, lambda: report.begin(IMPORTING))
    try:
        info = await _await_ready(connection, request, model, report)
    except BaseException:
        connection.close()
        raise
    if info is None:
        connection.close()
        return None
    report.end()
    return Lease(info, connection)


async def _await_ready(connection: socket.socket, request: bytes, model: str, report: StartReport) -> EngineInfo | None:
    """The engine's description once it serves; None when the host went away first."""
    loop, lines = asyncio.get_running_loop(), Lines(LONGEST_ANSWER)
    try:
        await loop.sock_sendall(connection, request)
        while data := await loop.sock_recv(connection, 65536):
            for message in _messages(lines, data):
                match message["event"]:
                    case "importing":
                        read = message["read"]
                        note = f"{read / 1e6:.0f} MB read from the disk" if read > _WORTH_TELLING else ""
                        report.begin(IMPORTING, note, message["s"])
                    case "progress":
                        report.begin(message["text"])
                    case "ready":
                        return EngineInfo.parse(message)
                    case "failed":
                        raise start_error(message, model)
                    case "refused":
                        raise EngineStartError(f"the engine host did not take the request: {message['message']}")
    except ConnectionError:
        return None
    return None


def _messages(lines: Lines, data: bytes) -> Iterator[dict[str, Any]]:
    """The host's messages in `data`. Raises `EngineStartError` where something else answers at the host's address."""
    for message in lines.feed(data):
        if isinstance(message, Malformed):
            raise EngineStartError(f"what answers at {socket_path()} is no engine host: {message.reason}")
        yield message


def _connect(linger_s: float, starting: Callable[[], None]) -> socket.socket:
    """A connection to the host, which is started where none runs, after a call of `starting`.

    The lock lets one client start it while the rest wait.
    """
    address = socket_path()
    with FileLock(address.with_suffix(".lock")):
        connection = _try_connect(address)
        if connection is None:
            starting()
            connection = _start_host(address, linger_s)
    return connection


def _try_connect(address: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    connection.setblocking(False)
    return connection


def _start_host(address: Path, linger_s: float) -> socket.socket:
    """Start the host and return a connection to it.

    The connection exists before the host does, so the host notices the end of this process whenever that comes.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "labkit.engines.host", str(address), "--linger", str(linger_s)]
    with theirs, _host_log().open("wb") as log:
        done = subprocess.run(
            [*command, "--client", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=host_environment(),
            pass_fds=[theirs.fileno()],
            check=False,
        )
    if done.returncode:
        ours.close()
        raise EngineStartError(f"the engine host did not start:\n{_host_log().read_text(errors='replace')[-2000:]}")
    ours.setblocking(False)
    return ours


def _host_log() -> Path:
    return runtime_dir() / "host.log"
