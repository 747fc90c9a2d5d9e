"""The process of an engine: starts it, tells whether it lives, ends it."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from labkit.engines.errors import EngineArgumentError
from labkit.engines.host import child
from labkit.engines.host.child import Place


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """The leader of an engine's process group, and where it listens. `spawned` is None for an engine that was forked."""

    pid: int
    port: int
    place: Place
    spawned: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def exited(self) -> bool:
        """Whether it has ended by itself."""
        # WNOWAIT leaves the zombie, so that its pid and process group stay ours until kill() has used them.
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    @property
    def serves(self) -> bool:
        """Whether its port takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it with its whole group, and remove its files."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        # A fork that has not reached setsid yet has no group of its own.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self.spawned is not None:
            self.spawned.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        shutil.rmtree(self.place.folder, ignore_errors=True)


def fork_engine(args: argparse.Namespace, port: int, folder: Path, inherited: Iterable[int]) -> EngineProcess:
    """An engine that is a fork of this process. `inherited` are the descriptors it must close.

    Raises `OSError` for a port that is taken.
    """
    listener = _bind(port)
    with listener, _place(folder) as place:
        args.host, args.port = "127.0.0.1", listener.getsockname()[1]
        sys.stdout.flush()
        sys.stderr.flush()
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            child.serve_forked(args, listener, place, inherited, host)
        return EngineProcess(pid, args.port, place)


def spawn_engine(flags: list[str], port: int, folder: Path) -> EngineProcess:
    """An engine that is a new Python, for a GPU: CUDA does not survive a fork. Raises `OSError` for a port that is taken."""
    listener = _bind(port)
    port = listener.getsockname()[1]
    listener.close()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *flags,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with _place(folder) as place, place.log.open("wb") as output:
        spawned = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(child.die_with_parent, os.getpid()),
            env={**os.environ, **place.environment()},
        )
        return EngineProcess(spawned.pid, port, place, spawned)


def checked_port(port: object) -> int:
    """`port` as a port number, 0 for any free one. Raises `EngineArgumentError` for anything else."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 1 << 16:
        raise EngineArgumentError(f"port={port!r}: give a number up to 65535, or leave port out to take a free one")
    return port


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Place]:
    place = Place(folder / secrets.token_hex(4), secrets.token_urlsafe(24))
    place.folder.mkdir(parents=True, mode=0o700)
    try:
        yield place
    except BaseException:
        shutil.rmtree(place.folder, ignore_errors=True)
        raise


def _bind(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"port {port} is taken ({error.strerror}); leave port out to take a free one") from error
    return listener
