"""The client's end of a lease."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit.engines.errors import EngineArgumentError, EngineStartError
from labkit.engines.host.runtime import Lines, encode, runtime_dir, socket_path
from labkit.engines.provenance import gpu

Progress = Callable[[str], None]

# What an engine's log says when it does not start, and what to do about it; the first that matches is told.
_FIXES = (
    (
        (
            "less than desired CPU memory",
            "No available memory for the cache blocks",
            "Cannot allocate memory",
            "out of memory",
        ),
        "too little memory: stop other engines, or pass a smaller kv_cache_memory_bytes or max_model_len",
    ),
    (
        ("larger than the available KV cache memory", "larger than the maximum number of tokens"),
        "the KV cache holds less than one full sequence: pass a larger kv_cache_memory_bytes or a smaller max_model_len",
    ),
    (("Address already in use", "is taken"), "the port is taken: leave port out to take a free one"),
    (
        (
            "is not a valid model identifier",
            "Invalid repository ID",
            "Repository Not Found",
            "couldn't connect to",
            "Cannot find any model weights",
            "does not appear to have a file named",
        ),
        "the model was not found: check the path, or that the hub can be reached",
    ),
    (("max_position_embeddings",), "max_model_len is more than the model was made for: pass a smaller one"),
    (("cannot be imported",), "vLLM is missing or broken here: run `labkit doctor`"),
)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A running engine: its OpenAI base URL and key, its processes, its log and the arguments it was started with."""

    url: str
    api_key: str
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
        # The host says nothing to a client with a running engine: anything readable is its end.
        return self._connection.fileno() >= 0 and not select.select([self._connection], [], [], 0)[0]

    def end(self) -> str:
        """Why an engine that is no longer alive ended, with its last line where it left one."""
        try:
            messages = list(Lines().feed(self._connection.recv(1 << 16)))
        except OSError:
            messages = []
        if not messages:
            return "its host ended"
        last = messages[-1]
        return ": ".join([last.get("reason", "it ended"), *last.get("log", [])[-1:]])

    def close(self) -> None:
        """Give the engine back; without other leases it is gone at once."""
        self._connection.close()


async def lease_engine(
    model: str,
    arguments: Mapping[str, Any],
    *,
    progress: Progress = lambda _: None,
    idle_s: float = 1200.0,
    linger_s: float = 20.0,
) -> Lease:
    """Attach to the engine that serves `model` with `arguments`, starting it, and the host, when they do not run.

    `model` is a folder or a hub id; `arguments` are vLLM's. The engine stops when it has served no request for `idle_s`
    seconds. `linger_s` is how long the host, should it be started here, outlives its last lease.

    Raises `EngineArgumentError` for arguments vLLM does not take, `EngineStartError` when the engine does not come up.
    """
    message = encode({"op": "lease", "model": model, "arguments": dict(arguments), "idle_s": idle_s})
    for _ in range(3):
        connection = await asyncio.to_thread(_connect, linger_s, progress)
        try:
            info = await _await_ready(connection, message, model, progress)
        except BaseException:
            connection.close()
            raise
        if info is not None:
            return Lease(info, connection)
        connection.close()
    raise EngineStartError(f"the engine host ended three times while it was starting; its log is {_host_log()}")


async def running_engines() -> list[EngineInfo]:
    """The engines of this user's host; none when no host runs."""
    connection = _try_connect(socket_path())
    if connection is None:
        return []
    loop, lines = asyncio.get_running_loop(), Lines()
    with connection:
        await loop.sock_sendall(connection, encode({"op": "list"}))
        while data := await loop.sock_recv(connection, 65536):
            for message in lines.feed(data):
                return [EngineInfo.parse(engine) for engine in message["engines"]]
    return []


async def _await_ready(connection: socket.socket, request: bytes, model: str, progress: Progress) -> EngineInfo | None:
    """The engine's address once it serves; None when the host went away first, which a new host can mend."""
    loop, lines = asyncio.get_running_loop(), Lines()
    try:
        await loop.sock_sendall(connection, request)
        while data := await loop.sock_recv(connection, 65536):
            for message in lines.feed(data):
                match message["event"]:
                    case "progress":
                        progress(message["text"])
                    case "ready":
                        return EngineInfo.parse(message)
                    case "failed":
                        raise _start_error(message, model)
    except ConnectionError:
        return None
    return None


def _start_error(message: Mapping[str, Any], model: str) -> Exception:
    if message["kind"] == "argument":
        return EngineArgumentError(message["message"])
    tail = tuple(message["log"])
    text = "\n".join((message["message"], *tail))
    fix = next((fix for signs, fix in _FIXES if any(sign.lower() in text.lower() for sign in signs)), "")
    lines = [f"no engine for {model}: {message['message']}"]
    if fix:
        lines.append(f"Likely fix: {fix}.")
    if tail:
        lines += ["The engine's last lines:", *(f"  {line}" for line in tail)]
    return EngineStartError("\n".join(lines), tail)


def _connect(linger_s: float, progress: Progress) -> socket.socket:
    """A connection to the host, started first when there is none. The lock makes one client start it and the rest wait."""
    address = socket_path()
    with FileLock(address.with_suffix(".lock")):
        connection = _try_connect(address)
        if connection is None:
            progress("importing vLLM")
            _start_host(address, linger_s)
            connection = _try_connect(address)
    if connection is None:
        raise EngineStartError(f"the engine host does not answer at {address}; its log is {_host_log()}")
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


def _start_host(address: Path, linger_s: float) -> None:
    with _host_log().open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "labkit.engines.host.server", str(address), "--linger", str(linger_s)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_host_environment(),
            check=False,
        )
    if done.returncode:
        raise EngineStartError(f"the engine host did not start:\n{_host_log().read_text(errors='replace')[-2000:]}")


def _host_log() -> Path:
    return runtime_dir() / "host.log"


def _host_environment() -> dict[str, str]:
    package_root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        # uniproc executor: one process fewer per engine, and half the start-up.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # OpenBLAS would start its threads on import, before the host forks.
        "OPENBLAS_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
    }
    # It would override kv_cache_memory_bytes.
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)
    if gpu() is None:
        environment = {**_threads(), **environment}
    if openmp := _openmp():
        environment["LD_PRELOAD"] = os.pathsep.join(filter(None, (environment.get("LD_PRELOAD"), openmp)))
    return environment


def _threads() -> dict[str, str]:
    """Threads of an engine that computes on the CPU, where the environment does not say otherwise.

    Measured on two cores with 12 answers under way: twice the tokens per second of what the libraries do by themselves.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        # One core for the server and the client: with a thread on every core, tokens wait for a core to be sent from.
        "OMP_NUM_THREADS": str(max(1, cores - 1)),
        # Milliseconds that an idle thread spins before it sleeps; 200 by default, during which nobody else has its core.
        "KMP_BLOCKTIME": "5",
        # Intel's OpenMP pins every fork of a process that has loaded it to the first core, unless told to leave that alone:
        # server and core of every engine would share it, and the other cores would idle.
        "KMP_AFFINITY": "none",
    }


def _openmp() -> str:
    """The OpenMP runtime to preload, as vLLM's CPU engine wants it: Intel's where installed, else torch's own."""
    if sys.platform != "linux":
        return ""
    candidates = [Path(sys.prefix) / "lib" / "libiomp5.so"]
    with contextlib.suppress(ImportError, ValueError):
        torch = importlib.util.find_spec("torch")
        folders = (torch.submodule_search_locations or ()) if torch else ()
        candidates.extend(Path(folder) / "lib" / "libgomp.so.1" for folder in folders)
    return next((str(path) for path in candidates if path.exists()), "")
