"""The host's loop over its clients' sockets, its engines' exits and its own linger.

Single-threaded and without an event loop on purpose: it forks, and a fork must not copy anything half-done.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from labkit.engines.errors import EngineArgumentError
from labkit.engines.host import child
from labkit.engines.host.arguments import ArgumentCheck
from labkit.engines.host.clients import Client, Clients
from labkit.engines.host.engines import LeasedEngine, engine_key, start_engine
from labkit.engines.host.leftovers import Leftovers
from labkit.engines.host.protocol import LeaseRequest, ListRequest, Malformed, PrepareRequest, Request, parse_request
from labkit.engines.host.read_ahead import bytes_read, reading_ahead
from labkit.engines.host.start_report import kept_folder

# Seconds between two checks of what no socket reports: while an engine starts or dies, and while all is quiet. The third is
# for the checks of the clients while vLLM is imported.
_BUSY_TICK = 0.03
_IDLE_TICK = 0.5
_IMPORT_TICK = 0.25


class Host:
    """Accepts leases, starts engines, watches both.

    `starter` is the connection of the client that started the host. `run` returns when nobody has needed an engine for
    `linger_s` seconds, or nobody can ask for one because the address has been deleted. Only clients that were answered count
    for that: when all clients are killed while they wait for the first engine, nobody will come back for one, and the host
    ends at once.
    """

    def __init__(self, listener: socket.socket, address: Path, linger_s: float, starter: socket.socket) -> None:
        self._address = address
        self._linger_s = linger_s
        self._clients = Clients(listener, starter)
        self._engines: dict[str, LeasedEngine] = {}
        self._leftovers = Leftovers()
        self._last_answer = -math.inf
        self._import_error = ""
        self._check: ArgumentCheck | None = None
        self._reader: int | None = None

    def prepare(self) -> None:
        """Import vLLM, so that engines can be forked. Clients wait in the listener's queue; each is told of a failure.

        On a GPU, engines are spawned and import vLLM for themselves. When all clients go meanwhile, the process ends here.
        """
        try:
            with self._ending_with_its_clients():
                check = ArgumentCheck()
                if check.on_cpu:
                    with reading_ahead(kept_folder() / "read-ahead.json") as self._reader:
                        child.preload()
                        check.build_parser()
                self._check = check
        except Exception as error:  # noqa: BLE001 - whatever a broken installation raises, the client must hear it
            self._import_error = f"vLLM cannot be imported: {type(error).__name__}: {error}"
        # A garbage collection in a child would touch every inherited object, and so copy every page; it skips frozen ones.
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serve until nobody has needed an engine for `linger_s` seconds."""
        while True:
            busy = self._leftovers.expected or any(not engine.ready for engine in self._engines.values())
            for client, data in self._clients.heard(_BUSY_TICK if busy else _IDLE_TICK):
                if data is None:
                    self._drop(client)
                else:
                    self._hear(client, data)
            for key in list(self._engines):
                self._watch(key)
            if self._leftovers.expected:
                self._leftovers.sweep()
            if any(engine.ready for engine in self._engines.values()):
                self._last_answer = time.monotonic()
            if self._clients or self._engines or self._leftovers.expected:
                continue
            if not self._address.exists():
                return
            if time.monotonic() - self._last_answer > self._linger_s and self._retire():
                return

    def stop_all(self) -> None:
        """Kill every engine."""
        for key in list(self._engines):
            self._kill(key)
        self._leftovers.sweep()

    @contextlib.contextmanager
    def _ending_with_its_clients(self) -> Iterator[None]:
        """Check the clients from a timer's signal while the import keeps the loop from running, and tell them how it goes.

        A thread would not do: a fork keeps only the thread that forks. On exit, only the address has to be removed.
        """
        began = time.monotonic()

        def look(*_: object) -> None:
            self._clients.accept()
            if self._clients.all_gone and self._retire():
                os._exit(0)
            processes = (os.getpid(), *([self._reader] if self._reader else []))
            read = sum(bytes_read(process) for process in processes)
            self._clients.tell({"event": "importing", "s": time.monotonic() - began, "read": read})

        signal.signal(signal.SIGALRM, look)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, _IMPORT_TICK, _IMPORT_TICK)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _retire(self) -> bool:
        """Close the address and return True, unless a client is about to connect.

        Clients connect while they hold the lock, so the host takes it first.
        """
        try:
            with FileLock(self._address.with_suffix(".lock"), timeout=0):
                self._clients.accept()
                if not self._clients.all_gone:
                    return False
                self._address.unlink(missing_ok=True)
                self._clients.close()
                return True
        except Timeout:
            return False

    def _hear(self, client: Client, data: bytes) -> None:
        for message in client.lines.feed(data):
            try:
                self._answer(client, parse_request(message))
            except Exception as error:  # noqa: BLE001 - what one client asks for must not end the engines of the others
                client.fail("start", f"the host could not do this: {type(error).__name__}: {error}")

    def _answer(self, client: Client, request: Request | Malformed) -> None:
        match request:
            case Malformed(reason):
                client.tell({"event": "refused", "message": reason})
            case ListRequest():
                engines = [engine.describe() for engine in self._engines.values()]
                client.tell({"event": "engines", "host_pid": os.getpid(), "engines": engines})
            case PrepareRequest():
                if self._check is not None:
                    self._last_answer = time.monotonic()
                client.tell({"event": "prepared"})
            case LeaseRequest() if any(client in engine.clients for engine in self._engines.values()):
                client.tell({"event": "refused", "message": "this connection holds a lease; open another one"})
            case LeaseRequest():
                self._lease(client, request)

    def _lease(self, client: Client, request: LeaseRequest) -> None:
        if self._check is None:
            # No reason to linger: by the next host the installation may be repaired.
            client.fail("start", self._import_error)
            return
        key = engine_key(request)
        if key not in self._engines:
            folder, inherited = self._address.parent / "engines", self._clients.descriptors
            try:
                self._engines[key] = start_engine(self._check, request, folder, inherited)
            except (EngineArgumentError, OSError) as error:
                self._last_answer = time.monotonic()
                client.fail("argument" if isinstance(error, EngineArgumentError) else "start", str(error))
                return
        self._engines[key].lease(client, request.idle_s)

    def _drop(self, client: Client) -> None:
        self._clients.drop(client)
        for key, engine in list(self._engines.items()):
            if client in engine.clients:
                engine.clients.remove(client)
                if not engine.clients:
                    self._kill(key)

    def _watch(self, key: str) -> None:
        engine = self._engines[key]
        if engine.process.exited and engine.ready:
            self._stop(key, {"event": "stopped", "reason": "it exited", "log": engine.log.tail()})
        elif engine.process.exited:
            self._last_answer = time.monotonic()
            message = "the engine exited before it was ready"
            self._stop(key, {"event": "failed", "kind": "start", "message": message, "log": engine.log.tail()})
        elif not engine.ready:
            engine.watch_start()
        elif engine.idle():
            self._stop(key, {"event": "stopped", "reason": f"it served no request for {engine.idle_s / 60:.3g} minutes"})

    def _stop(self, key: str, message: dict[str, object]) -> None:
        self._engines[key].tell(message)
        self._kill(key)

    def _kill(self, key: str) -> None:
        engine = self._engines.pop(key)
        engine.kill()
        self._leftovers.expect(engine.process.pid)
