"""The host's loop over its clients' sockets, its engines' exits and its own linger.

Single-threaded and without an event loop on purpose: it forks, and a fork must find nothing half-done.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.engines.errors import EngineArgumentError
from labkit.engines.host import child
from labkit.engines.host.activity import Activity
from labkit.engines.host.arguments import ArgumentCheck, with_defaults
from labkit.engines.host.door import DOOR
from labkit.engines.host.engine_log import EngineLog
from labkit.engines.host.leftovers import Leftovers
from labkit.engines.host.processes import EngineProcess, checked_port, fork_engine, spawn_engine
from labkit.engines.host.protocol import LeaseRequest, Lines, ListRequest, Malformed, encode, parse_request

# Seconds between two looks at what no socket tells: while something starts or dies, while all is quiet, at an engine's
# counters, and at the clients while vLLM is imported.
_BUSY_TICK = 0.03
_IDLE_TICK = 0.5
_ACTIVITY_TICK = 15.0
_IMPORT_TICK = 0.25


@dataclass
class Client:
    """A connection, and the engine it leases."""

    connection: socket.socket
    lines: Lines = field(default_factory=Lines)
    engine: Engine | None = None

    @property
    def gone(self) -> bool:
        """Whether its end is closed, whatever it has said before that is still to be read."""
        poll = select.poll()
        poll.register(self.connection, 0)  # a hang-up is told without being asked for
        return any(event & select.POLLHUP for _, event in poll.poll(0))


@dataclass
class Engine:
    """A running engine, what it was asked to be, and who leases it."""

    key: str
    model: str
    arguments: dict[str, Any]
    process: EngineProcess
    log: EngineLog
    activity: Activity
    idle_s: float
    ready: bool = False
    clients: list[Client] = field(default_factory=list)
    next_look: float = 0.0

    def describe(self) -> dict[str, Any]:
        """What a client needs to use the engine, or to know it."""
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


class Host:
    """Accepts leases, starts engines, watches both.

    `starter` is the connection of the client that started the host. `run` returns when nobody has needed an engine for
    `linger_s` seconds. Only who was answered counts for that: a client that is killed while it waits for its first engine
    has nothing to come back to, and takes the host along at once.
    """

    def __init__(self, listener: socket.socket, address: Path, linger_s: float, starter: socket.socket) -> None:
        self._listener = listener
        self._address = address
        self._linger_s = linger_s
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._engines: dict[str, Engine] = {}
        self._clients: list[Client] = []
        self._leftovers = Leftovers()
        self._last_answer = -math.inf
        self._import_error = ""
        self._check: ArgumentCheck | None = None
        self._welcome(starter)

    def prepare(self) -> None:
        """Import vLLM, to fork engines from. Clients wait in the listener's queue; a failure is told to each of them.

        On a GPU engines are spawned, and import vLLM for themselves. The process ends here when its clients do.
        """
        try:
            with self._ending_with_its_clients():
                check = ArgumentCheck()
                if check.on_cpu:
                    child.preload()
                    check.build_parser()
                self._check = check
        except Exception as error:  # noqa: BLE001 - whatever a broken installation raises, the client must hear it
            self._import_error = f"vLLM cannot be imported: {type(error).__name__}: {error}"
        # A collection in a child would touch every inherited object and so copy every page; frozen ones it skips.
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serve until idle for the linger."""
        while True:
            busy = self._leftovers.expected or any(not engine.ready for engine in self._engines.values())
            for key, _ in self._selector.select(_BUSY_TICK if busy else _IDLE_TICK):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            for engine in list(self._engines.values()):
                self._watch(engine)
            if self._leftovers.expected:
                self._leftovers.sweep()
            if any(engine.ready for engine in self._engines.values()):
                self._last_answer = time.monotonic()
            needed = self._clients or self._engines or self._leftovers.expected
            if not needed and time.monotonic() - self._last_answer > self._linger_s and self._retire():
                return

    def stop_all(self) -> None:
        """Kill every engine."""
        for engine in list(self._engines.values()):
            self._kill(engine)
        self._leftovers.sweep()

    @contextlib.contextmanager
    def _ending_with_its_clients(self) -> Iterator[None]:
        """Look after the clients from a timer's signal, for as long as the import leaves no time for the loop.

        Not from a thread: a fork keeps only the thread that forks. Nothing has to be undone but the address.
        """

        def look(*_: object) -> None:
            self._accept()
            if all(client.gone for client in self._clients) and self._retire():
                os._exit(0)

        signal.signal(signal.SIGALRM, look)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_TICK, _IMPORT_TICK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _retire(self) -> bool:
        """Close the address, unless a client is on its way: clients connect while they hold the lock, so we take it."""
        try:
            with FileLock(self._address.with_suffix(".lock"), timeout=0):
                self._accept()
                if not all(client.gone for client in self._clients):
                    return False
                self._address.unlink(missing_ok=True)
                self._listener.close()
                return True
        except Timeout:
            return False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # BlockingIOError: nobody waits any more; others: the client has gone again
            while True:
                self._welcome(self._listener.accept()[0])

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        client = Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        for message in client.lines.feed(data):
            try:
                self._answer(client, parse_request(message))
            except Exception as error:  # noqa: BLE001 - what one client asks for must not end the engines of the others
                self._fail(client, "start", f"the host could not do this: {type(error).__name__}: {error}")

    def _answer(self, client: Client, request: LeaseRequest | ListRequest | Malformed) -> None:
        match request:
            case Malformed(reason):
                self._send(client, {"event": "refused", "message": reason})
            case ListRequest():
                self._send(client, {"event": "engines", "engines": [e.describe() for e in self._engines.values()]})
            case LeaseRequest() if client.engine is not None:
                self._send(client, {"event": "refused", "message": "this connection holds a lease; open another one"})
            case LeaseRequest():
                self._lease(client, request)

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        # A client that reads nothing has a full socket; its lease is what matters, and that it keeps.
        with contextlib.suppress(OSError):
            client.connection.send(encode(message))

    def _fail(self, client: Client, kind: str, message: str) -> None:
        self._send(client, {"event": "failed", "kind": kind, "message": message, "log": []})

    def _drop(self, client: Client) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)
        engine, client.engine = client.engine, None
        if engine is not None:
            engine.clients.remove(client)
            if not engine.clients:
                self._kill(engine)

    def _lease(self, client: Client, request: LeaseRequest) -> None:
        if self._check is None:
            # No reason to linger: the next host may find the installation mended.
            self._fail(client, "start", self._import_error)
            return
        key = json.dumps([request.model, _weights_age(request.model), dict(request.arguments)], sort_keys=True)
        engine = self._engines.get(key)
        if engine is None:
            try:
                engine = self._engines[key] = self._start(self._check, key, request)
            except (EngineArgumentError, OSError) as error:
                self._last_answer = time.monotonic()
                self._fail(client, "argument" if isinstance(error, EngineArgumentError) else "start", str(error))
                return
        engine.idle_s = max(engine.idle_s, request.idle_s)
        engine.activity.last = time.monotonic()
        engine.clients.append(client)
        client.engine = engine
        event = (
            {"event": "ready", **engine.describe()} if engine.ready else {"event": "progress", "text": "starting the engine"}
        )
        self._send(client, event)

    def _start(self, check: ArgumentCheck, key: str, request: LeaseRequest) -> Engine:
        arguments = with_defaults(request.model, request.arguments, check.on_cpu)
        port = checked_port(arguments.pop("port", 0))
        # The last middleware is the outermost.
        flags = [*check.flags(request.model, arguments), "--middleware", DOOR]
        folder = self._address.parent / "engines"
        process = (
            fork_engine(check.parse(flags), port, folder, self._descriptors())
            if check.on_cpu
            else spawn_engine(flags, port, folder)
        )
        activity = Activity(time.monotonic())
        return Engine(key, request.model, arguments, process, EngineLog(process.place.log), activity, request.idle_s)

    def _descriptors(self) -> list[int]:
        """What a fork inherits and must close: a lease held open by an engine would outlive its client."""
        epoll = getattr(self._selector, "fileno", None)
        clients = [client.connection.fileno() for client in self._clients]
        return [self._listener.fileno(), *clients, *([epoll()] if epoll else [])]

    def _watch(self, engine: Engine) -> None:
        if engine.process.exited:
            self._exited(engine)
        elif not engine.ready:
            self._watch_start(engine)
        elif time.monotonic() > engine.next_look:
            self._watch_activity(engine)

    def _watch_start(self, engine: Engine) -> None:
        if not engine.process.serves:
            for text in engine.log.new_phases():
                self._tell(engine, {"event": "progress", "text": text})
            return
        engine.ready = True
        engine.activity.last = time.monotonic()
        engine.next_look = engine.activity.last + min(_ACTIVITY_TICK, engine.idle_s / 4)
        self._tell(engine, {"event": "ready", **engine.describe()})

    def _watch_activity(self, engine: Engine) -> None:
        now = time.monotonic()
        engine.next_look = now + min(_ACTIVITY_TICK, engine.idle_s / 4)
        engine.activity.look(engine.process.port, engine.process.place.api_key, now)
        if now - engine.activity.last > engine.idle_s:
            minutes = engine.idle_s / 60
            self._stop(engine, {"event": "stopped", "reason": f"it served no request for {minutes:.3g} minutes"})

    def _exited(self, engine: Engine) -> None:
        tail = engine.log.tail()
        if engine.ready:
            self._stop(engine, {"event": "stopped", "reason": "it exited", "log": tail})
        else:
            self._last_answer = time.monotonic()
            message = "the engine exited before it was ready"
            self._stop(engine, {"event": "failed", "kind": "start", "message": message, "log": tail})

    def _tell(self, engine: Engine, message: dict[str, Any]) -> None:
        for client in engine.clients:
            self._send(client, message)

    def _stop(self, engine: Engine, message: dict[str, Any]) -> None:
        self._tell(engine, message)
        for client in engine.clients:
            client.engine = None
        engine.clients.clear()
        self._kill(engine)

    def _kill(self, engine: Engine) -> None:
        del self._engines[engine.key]
        engine.process.kill()
        self._leftovers.expect(engine.process.pid)


def _weights_age(model: str) -> int:
    """When the model's files last changed: a retrained model is another model. 0 for hub ids."""
    return max((file.stat().st_mtime_ns for file in Path(model).glob("*.*")), default=0) if Path(model).is_dir() else 0
