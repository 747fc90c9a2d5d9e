"""Turns a fork of the host into vLLM's own OpenAI server, whose engine core is a fork too."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from labkit.engines.host.block_frames import FOLDER_VARIABLE
from labkit.engines.host.door import KEY_VARIABLE

_PR_SET_PDEATHSIG = 1

# vLLM and transformers import these where they find them, and an engine that answers text on a CPU needs none: scikit-learn
# (with pandas) is for a decoding trick of transformers that vLLM never uses, scipy resamples sound, OpenCV decodes video,
# and vLLM turns Triton's kernels off on a CPU. Without them an idle host holds 160 MiB less, and a start from a cold disk
# reads 380 MB less.
_NOT_NEEDED = ("sklearn", "scipy", "cv2", "triton")


def die_with_parent(parent: int) -> None:
    """Ask Linux to SIGKILL this process when the thread that forked it ends; elsewhere, leave it to the process group."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(1)


def live_on() -> None:
    """Undo `die_with_parent`: this process outlives its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0)


def preload() -> None:
    """Import all that an engine needs, without starting a thread: a fork keeps only the thread that forks."""
    for package in _NOT_NEEDED:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # reads as "not installed"
    import uvloop  # noqa: F401
    import vllm.entrypoints.launchers.api_server.app_state
    import vllm.entrypoints.launchers.api_server.routers
    import vllm.model_executor.models.llama
    import vllm.tokenizers
    import vllm.v1.core.sched.scheduler
    import vllm.v1.engine.async_llm
    import vllm.v1.engine.core
    import vllm.v1.structured_output.backend_xgrammar
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        import vllm.v1.worker.cpu_model_runner
        import vllm.v1.worker.cpu_worker  # noqa: F401


@dataclass(frozen=True, slots=True)
class Place:
    """The key that the host gives an engine, and the folder for its log and its other files.

    The host deletes the folder, so that a killed engine leaves no file.
    """

    folder: Path
    api_key: str = field(repr=False)

    @property
    def log(self) -> Path:
        """The file of the engine's output."""
        return self.folder / "log"

    def environment(self) -> dict[str, str]:
        """The environment variables that tell vLLM its key and its folder."""
        folders = dict.fromkeys(("TMPDIR", "VLLM_RPC_BASE_PATH", FOLDER_VARIABLE), str(self.folder))
        return {**folders, KEY_VARIABLE: self.api_key}


def serve_forked(
    args: argparse.Namespace, listener: socket.socket, place: Place, inherited: Iterable[int], parent: int
) -> None:
    """Turn this fresh fork into an engine that serves `args` on `listener`. Never returns."""
    status = 1
    try:
        _detach(place, inherited, parent)
        _eager_all_through(args)
        _fork_the_core()
        _run(args, listener)
        status = 0
    except BaseException:  # noqa: BLE001 - the traceback goes into the engine's log, which the host tells the client
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: it would run the cleanup of the host, whose stack this fork has inherited.
        os._exit(status)


def _detach(place: Place, inherited: Iterable[int], parent: int) -> None:
    die_with_parent(parent)
    # Every process forked from here on (the fork server, the engine core) dies with the one that forked it.
    forker = {"pid": 0}
    os.register_at_fork(before=lambda: forker.update(pid=os.getpid()), after_in_child=lambda: die_with_parent(forker["pid"]))
    os.setsid()
    output = os.open(place.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for descriptor in inherited:
        os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(place.environment())
    tempfile.tempdir = None
    gc.enable()


def _eager_all_through(args: argparse.Namespace) -> None:
    """Make enforce_eager stop all compiling: vLLM still compiles its log-probability ranks on first use, for 8 s here."""
    if args.enforce_eager:
        import torch._dynamo

        torch._dynamo.config.disable = True


def _fork_the_core() -> None:
    """Let vLLM start its engine core from a fork server that is itself a fork of this process, so the core imports nothing.

    By itself, vLLM would spawn the core, which would import everything again. Forking the core from the server is not safe
    once the server has threads. So multiprocessing's own fork server is started now, while there are none. It would start by
    executing a new Python, through the function `spawnv_passfds`; that is replaced by a fork meanwhile.
    """
    import multiprocessing
    import multiprocessing.forkserver
    import multiprocessing.util

    import vllm.v1.engine.utils

    def fork_instead(_path: str, command: Sequence[Any], descriptors: Sequence[int]) -> int:
        program = command[list(command).index("-c") + 1]
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            # As in an executed Python, only the descriptors meant for this process stay open: a process that holds the
            # writing end of its own pipe never sees that pipe end.
            for low, high in pairwise(sorted({2, *descriptors, os.sysconf("SC_OPEN_MAX")})):
                if low + 1 < high:  # CPython passes closerange(0, 0) to close_range(2) as "all"
                    os.closerange(low + 1, high)
            if "resource_tracker" in program:
                # The resource tracker removes the semaphores of the other processes once they are gone, so it must outlive
                # them for that moment. It notices their end when its pipe ends.
                live_on()
                os.setpgid(0, 0)
            exec(program, {"__name__": "__main__"})
            status = 0
        except BaseException:  # noqa: BLE001 - a fork must not return into its parent's stack; it can only log
            traceback.print_exc()
        finally:
            os._exit(status)

    original = multiprocessing.util.spawnv_passfds
    multiprocessing.util.spawnv_passfds = fork_instead  # type: ignore[assignment]
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        multiprocessing.util.spawnv_passfds = original
    context = multiprocessing.get_context("forkserver")
    vllm.v1.engine.utils.get_mp_context = lambda: context


def _run(args: argparse.Namespace, listener: socket.socket) -> None:
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.logger import configure_logging_from_args
    from vllm.utils.system_utils import decorate_logs, set_ulimit

    sys.argv = ["vllm-engine"]
    configure_logging_from_args(args)
    decorate_logs("APIServer")
    set_ulimit()
    uvloop.run(run_server_worker(f"http://{args.host}:{args.port}", listener, args))
