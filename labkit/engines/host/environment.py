"""The environment variables that a host is started with."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from labkit.engines.provenance import gpu


def host_environment() -> dict[str, str]:
    """What a host, and with it every engine, is started with: this process's environment, and what makes vLLM quick here."""
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
