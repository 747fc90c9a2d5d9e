"""The host process: one loop over its clients' sockets, its engines' exits and its own linger.

Single-threaded and without an event loop on purpose: it forks, and a fork must find nothing half-done.

Messages from a client, one a connection: `{"op": "lease", "model", "arguments", "idle_s"}`, which holds the engine until the
connection closes, or `{"op": "list"}`. Messages to it: `{"event": "progress" | "ready" | "failed" | "stopped" | "engines"}`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import http.client
import json
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.engines.errors import EngineArgumentError
from labkit.engines.host import child
from labkit.engines.host.arguments import ArgumentCheck, with_defaults
from labkit.engines.host.runtime import Lines, encode

_STARTING_TICK = 0.03
_IDLE_TICK = 0.5
_ACTIVITY_CHECK = 15.0
_SWEEP = 3.0
_LOG_TAIL = 15
_LOG_CAUSES = 5
_EXCEPTION = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception): \S")
_ACTIVITY = re.compile(
    rb"^vllm:(?:num_requests_running|num_requests_waiting|generation_tokens_total|prompt_tokens_total)\{.*", re.M
)
_RUNNING = re.compile(rb"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (?!0(?:\.0)?$)", re.M)
# What the engine's log says, and what to tell who waits for it.
_PHASES = (
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "weights loaded"),
    ("KV cache size:", "KV cache reserved"),
    ("Starting vLLM server", "starting the server"),
)


@dataclass
class Client:
    """A connection, and the engine it leases."""

    connection: socket.socket
    lines: Lines = field(default_factory=Lines)
    engine: Engine | None = None


@dataclass
class Engine:
    """A running engine: the leader of its process group, where it listens, and who leases it."""

    key: str
    model: str
    arguments: dict[str, Any]
    pid: int
    port: int
    api_key: str
    log: Path
    scratch: Path
    idle_s: float
    started: float
    spawned: subprocess.Popen[bytes] | None = None
    ready: bool = False
    phases: int = 0
    clients: list[Client] = field(default_factory=list)
    activity: bytes = b""
    last_active: float = 0.0
    next_check: float = 0.0

    def describe(self) -> dict[str, Any]:
        """What a client needs to use the engine, or to know it."""
        return {
            "url": f"http://127.0.0.1:{self.port}/v1",
            "api_key": self.api_key,
            "pid": self.pid,
            "host_pid": os.getpid(),
            "log": str(self.log),
            "model": self.model,
            "arguments": self.arguments,
            "leases": len(self.clients),
            "ready": self.ready,
            "on_cpu": self.spawned is None,
        }


class Host:
    """Accepts leases, forks engines, watches both. `run` returns when nobody has needed it for `linger_s` seconds."""

    def __init__(self, listener: socket.socket, address: Path, linger_s: float) -> None:
        self._listener = listener
        self._address = address
        self._linger_s = linger_s
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._engines: dict[str, Engine] = {}
        self._clients: list[Client] = []
        self._born = time.time()
        self._sweep_until = 0.0
        self._last_used = time.monotonic()
        self._import_error = ""
        self._check: ArgumentCheck | None = None

    def prepare(self) -> None:
        """Import vLLM, to fork engines from. Clients wait in the listener's queue; a failure is told to each of them.

        On a GPU engines are spawned, and import vLLM for themselves.
        """
        try:
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
        self._last_used = time.monotonic()

    def run(self) -> None:
        """Serve until idle for the linger."""
        while True:
            starting = any(not engine.ready for engine in self._engines.values())
            for key, _ in self._selector.select(_STARTING_TICK if starting else _IDLE_TICK):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            for engine in list(self._engines.values()):
                self._watch(engine)
            if time.monotonic() < self._sweep_until:
                # More than once: the kernel may take a second to take down what was killed.
                _sweep_openmp(self._born)
            if self._clients or self._engines or time.monotonic() < self._sweep_until:
                self._last_used = time.monotonic()
            elif time.monotonic() - self._last_used > self._linger_s and self._retire():
                return

    def stop_all(self) -> None:
        """Kill every engine."""
        for engine in list(self._engines.values()):
            self._kill(engine)
        _sweep_openmp(self._born)

    def _retire(self) -> bool:
        """Close the address, unless a client is on its way: clients connect while they hold the lock, so we take it."""
        try:
            with FileLock(self._address.with_suffix(".lock"), timeout=0):
                if self._selector.select(0):
                    return False
                self._address.unlink(missing_ok=True)
                self._listener.close()
                return True
        except Timeout:
            return False

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
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
            if message["op"] == "lease":
                self._lease(client, message)
            else:
                self._send(client, {"event": "engines", "engines": [e.describe() for e in self._engines.values()]})

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        # A client that reads nothing has a full socket; its lease is what matters, and that it keeps.
        with contextlib.suppress(OSError):
            client.connection.send(encode(message))

    def _drop(self, client: Client) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)
        engine, client.engine = client.engine, None
        if engine is not None:
            engine.clients.remove(client)
            if not engine.clients:
                self._kill(engine)

    def _lease(self, client: Client, message: Mapping[str, Any]) -> None:
        if self._import_error or self._check is None:
            self._send(client, {"event": "failed", "kind": "start", "message": self._import_error, "log": []})
            return
        model, given = message["model"], message["arguments"]
        key = json.dumps([model, _weights_age(model), given], sort_keys=True)
        engine = self._engines.get(key)
        if engine is None:
            try:
                engine = self._start(key, model, given, message["idle_s"])
            except EngineArgumentError as error:
                self._send(client, {"event": "failed", "kind": "argument", "message": str(error), "log": []})
                return
            except OSError as error:
                self._send(client, {"event": "failed", "kind": "start", "message": str(error), "log": []})
                return
        engine.idle_s = max(engine.idle_s, message["idle_s"])
        engine.last_active = time.monotonic()
        engine.clients.append(client)
        client.engine = engine
        event = (
            {"event": "ready", **engine.describe()} if engine.ready else {"event": "progress", "text": "starting the engine"}
        )
        self._send(client, event)

    def _start(self, key: str, model: str, given: Mapping[str, Any], idle_s: float) -> Engine:
        assert self._check is not None
        arguments = with_defaults(model, given, self._check.on_cpu)
        wanted_port = arguments.pop("port", 0)
        flags = self._check.flags(model, arguments)
        args = self._check.parse(flags) if self._check.on_cpu else None
        listener = _bind(wanted_port)
        port = listener.getsockname()[1]
        api_key = secrets.token_urlsafe(24)
        scratch = self._address.parent / "engines" / secrets.token_hex(4)
        scratch.mkdir(parents=True, mode=0o700)
        log = scratch / "log"
        spawned: subprocess.Popen[bytes] | None = None
        if args is not None:
            args.host, args.port, args.api_key = "127.0.0.1", port, [api_key]
            sys.stdout.flush()
            sys.stderr.flush()
            host = os.getpid()
            pid = os.fork()
            if pid == 0:
                child.serve_forked(args, listener, log, scratch, self._descriptors(), host)
            listener.close()
        else:
            listener.close()
            command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
            with log.open("wb") as output:
                spawned = subprocess.Popen(
                    [*command, "--host", "127.0.0.1", "--port", str(port)],
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=partial(child.die_with_parent, os.getpid()),
                    env={**os.environ, **child.environment(scratch), "VLLM_API_KEY": api_key},
                )
            pid = spawned.pid
        now = time.monotonic()
        self._engines[key] = Engine(
            key, model, arguments, pid, port, api_key, log, scratch, idle_s, now, spawned, last_active=now, next_check=now
        )
        return self._engines[key]

    def _descriptors(self) -> list[int]:
        """What a fork inherits and must close: a lease held open by an engine would outlive its client."""
        return [self._listener.fileno(), *(c.connection.fileno() for c in self._clients), *_epoll(self._selector)]

    def _watch(self, engine: Engine) -> None:
        if _exited(engine):
            self._exited(engine)
        elif not engine.ready:
            self._watch_start(engine)
        elif time.monotonic() > engine.next_check:
            self._watch_activity(engine)

    def _watch_start(self, engine: Engine) -> None:
        try:
            socket.create_connection(("127.0.0.1", engine.port), timeout=1).close()
        except OSError:
            text = engine.log.read_text(errors="replace") if engine.log.exists() else ""
            while engine.phases < len(_PHASES) and _PHASES[engine.phases][0] in text:
                self._tell(engine, {"event": "progress", "text": _PHASES[engine.phases][1]})
                engine.phases += 1
            return
        engine.ready = True
        engine.last_active = time.monotonic()
        engine.next_check = engine.last_active + min(_ACTIVITY_CHECK, engine.idle_s / 4)
        self._tell(engine, {"event": "ready", **engine.describe()})

    def _watch_activity(self, engine: Engine) -> None:
        """Idle is what the engine's own counters say, whoever sends the requests."""
        now = time.monotonic()
        engine.next_check = now + min(_ACTIVITY_CHECK, engine.idle_s / 4)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5)
            connection.request("GET", "/metrics")
            body = connection.getresponse().read()
            connection.close()
        except OSError:
            return  # busy or on its way out; its exit is seen elsewhere
        activity = b"\n".join(_ACTIVITY.findall(body))
        if activity != engine.activity or _RUNNING.search(body):
            engine.activity = activity
            engine.last_active = now
        elif now - engine.last_active > engine.idle_s:
            minutes = engine.idle_s / 60
            self._stop(engine, {"event": "stopped", "reason": f"it served no request for {minutes:.3g} minutes"})

    def _exited(self, engine: Engine) -> None:
        tail = _tail(engine.log)
        if engine.ready:
            self._stop(engine, {"event": "stopped", "reason": "it exited", "log": tail})
        else:
            message = "the engine exited before it was ready"
            self._stop(engine, {"event": "failed", "kind": "start", "message": message, "log": tail})

    def _tell(self, engine: Engine, message: dict[str, Any]) -> None:
        for client in engine.clients:
            self._send(client, message)

    def _stop(self, engine: Engine, message: dict[str, Any]) -> None:
        self._tell(engine, message)
        for client in list(engine.clients):
            client.engine = None
        engine.clients.clear()
        self._kill(engine)

    def _kill(self, engine: Engine) -> None:
        del self._engines[engine.key]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(engine.pid, signal.SIGKILL)
        # A fork that has not reached setsid yet has no group of its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine.pid, signal.SIGKILL)
        if engine.spawned is not None:
            engine.spawned.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(engine.pid, 0)
        shutil.rmtree(engine.scratch, ignore_errors=True)
        self._sweep_until = time.monotonic() + _SWEEP


def _exited(engine: Engine) -> bool:
    # WNOWAIT leaves the zombie, so that its pid and process group stay ours until _kill has used them.
    try:
        return os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"port {port} is taken ({error.strerror}); leave port out to take a free one") from error
    return listener


def _epoll(selector: selectors.BaseSelector) -> list[int]:
    fileno = getattr(selector, "fileno", None)
    return [fileno()] if fileno else []


def _weights_age(model: str) -> int:
    """When the model's files last changed: a retrained model is another model. 0 for hub ids."""
    return max((file.stat().st_mtime_ns for file in Path(model).glob("*.*")), default=0) if Path(model).is_dir() else 0


def _sweep_openmp(since: float) -> None:
    """Remove what Intel's OpenMP leaves in shared memory for each killed process: a page named after its pid and user."""
    for page in Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_*_{os.getuid()}"):
        pid = page.name.split("_")[-2]
        with contextlib.suppress(OSError):
            if page.stat().st_mtime >= since and not Path("/proc", pid).exists():
                page.unlink()


def _tail(log: Path) -> list[str]:
    """The engine's last lines, after the exceptions it logged before them: the cause is often a hundred lines up."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    last = lines[-_LOG_TAIL:]
    causes = [line for line in lines[:-_LOG_TAIL] if _EXCEPTION.search(line)]
    return [*dict.fromkeys(causes[-_LOG_CAUSES:]), *last]


def main() -> None:
    """Bind the address, detach, then serve. The caller waits only for the detaching."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", type=Path)
    parser.add_argument("--linger", type=float, default=20.0, metavar="SECONDS")
    options = parser.parse_args()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    options.address.unlink(missing_ok=True)
    listener.bind(str(options.address))
    listener.listen(128)
    # The parent returns to the client at once; the orphan is adopted by init, so no client has to reap it.
    if os.fork():
        os._exit(0)
    os.setsid()
    host = Host(listener, options.address, options.linger)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        host.prepare()
        host.run()
    finally:
        host.stop_all()


if __name__ == "__main__":
    main()
