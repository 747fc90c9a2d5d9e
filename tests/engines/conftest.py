from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from labkit.engines import Engine, connect, running_engines

from .tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def live(host: None, tiny_model: Path) -> Iterator[Engine]:
    """One engine for the whole session; its host ends with the session."""
    engine = asyncio.run(connect("vllm", str(tiny_model), progress=print, scheduling_policy="priority"))
    host_pid = asyncio.run(running_engines())[0].host_pid
    yield engine
    asyncio.run(engine.aclose())
    os.kill(host_pid, signal.SIGTERM)
    eventually(lambda: not psutil.pid_exists(host_pid), "the host ends when told to")


def eventually(condition: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    """Wait until `condition`: for things that must happen, not for how fast."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.02)


def family(pid: int) -> list[psutil.Process]:
    """Every living process below `pid`."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
