"""One detached process per user that imports vLLM once and forks an engine for every (model, arguments) asked of it.

Importing vLLM takes most of an engine's start-up, and it is the same for every engine. So a *host* imports it once, before
any thread starts, and forks: each fork runs vLLM's own OpenAI server, with its own address, key, log and engine core. On a
GPU, where CUDA does not survive a fork, the host spawns the same server instead; everything else stays as it is.

A process that uses an engine holds a *lease*: an open Unix-socket connection to the host. The kernel of the operating system
closes it when the process ends, however it ends, SIGKILL included. An engine without a lease is killed at once, and engines
die with their host. A host without engines waits ten minutes for the next one, with some 500 MiB, and exits. Nothing is left
behind to clean up.
"""

from labkit.engines.host.arguments import has_avx512
from labkit.engines.host.block_frames import CONFIG_KEY as BLOCK_FRAMES
from labkit.engines.host.block_frames import SOCKET_NAME
from labkit.engines.host.client import (
    LINGER_S,
    EngineInfo,
    Lease,
    lease_engine,
    running_engines,
    running_host,
    start_host,
)
from labkit.engines.host.runtime import runtime_dir
from labkit.engines.host.scheduler import SCHEDULER
from labkit.engines.host.step_log import CONFIG_KEY as STEP_LOG
from labkit.engines.host.step_log import LoggedStep, read_step_log

__all__ = [
    "BLOCK_FRAMES",
    "LINGER_S",
    "SCHEDULER",
    "SOCKET_NAME",
    "STEP_LOG",
    "EngineInfo",
    "Lease",
    "LoggedStep",
    "has_avx512",
    "lease_engine",
    "read_step_log",
    "running_engines",
    "running_host",
    "runtime_dir",
    "start_host",
]
