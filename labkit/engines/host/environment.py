"""The environment variables that a host is started with."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from labkit.engines.provenance import gpu


def host_environment() -> dict[str, str]:
    """The environment of a host and all its engines: that of this process, and the variables that make vLLM quick here."""
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
    """Thread settings of an engine that computes on the CPU; the environment's own values win.

    Measured on two cores with 12 concurrent answers: twice the tokens per second of the libraries' own defaults.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        # One core is left for the server and the client: with a thread on every core, tokens wait for one to be sent.
        "OMP_NUM_THREADS": str(max(1, cores - 1)),
        # Milliseconds that an idle thread spins before it sleeps. The default is 200, in which nobody else can use its core.
        "KMP_BLOCKTIME": "5",
        # Otherwise Intel's OpenMP pins every fork of a process that has loaded it to the first processor core: the server
        # and the engine core of every engine would share it, and the other processor cores would idle.
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
