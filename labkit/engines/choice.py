"""One call for an engine, whatever this machine has: a live vLLM, an endpoint somebody shares, or a recording."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.engines.engine import Engine
from labkit.engines.host import LINGER_S, start_host
from labkit.engines.host.arguments import model_name
from labkit.engines.recorder import check_new
from labkit.engines.sources import EngineSource, Live, Progress, Replayed, Shared
from labkit.request import InvalidValue

_RECORD = "record:"


async def connect(
    engine: str = "auto",
    model: str = "small",
    *,
    progress: Progress | None = None,
    recording: Path | str | None = None,
    adapters: Sequence[str] = (),
    idle_s: float = 1200.0,
    linger_s: float = LINGER_S,
    stall_s: float = 120.0,
    **vllm_arguments: Any,
) -> Engine:
    """Connect to an engine that serves `model`.

    `engine` is one of:

    - "vllm": live on this machine, shared with the user's other processes;
    - "endpoint": the one at LABKIT_BASE_URL, with LABKIT_API_KEY; or an http(s) base URL, with the same key;
    - "replay": a recording;
    - "record:FILE": live, and each answer is written to FILE for a replay, with the engine's counters for it. Nobody else
      should use that engine meanwhile;
    - "auto": the endpoint when LABKIT_BASE_URL is set, else vLLM when it is installed and LABKIT_ENGINE is not "none", else
      a replay.

    `model`: "small" or "large" (the lab's own, or the ones that LABKIT_SMALL and LABKIT_LARGE name), a folder, or a hub id.
    `progress` is called with each step of the start-up and, every five seconds, with how long it has taken and how long it
    took last time ("importing vLLM: 10 s of about 21 s"); by default all that is printed on one line.
    `recording` is the file to replay; by default the newest in data/recordings made with `model`.
    `adapters` are LoRA adapters to serve beside the model, from the same engine: "house", or folders. A request
    asks for one by its name, `Request(…, model="house")`, and for the base model by naming none. An endpoint must serve them
    already; a replay plays what was recorded with them.
    `idle_s`: a live engine that has served no request for so many seconds is stopped; the next request starts it again.
    `linger_s`: how many seconds the process that keeps vLLM imported, and some 500 MiB with it, waits for another engine.
    `stall_s`: how many seconds an engine may send nothing before `EngineStalled`.
    `vllm_arguments` are vLLM's engine arguments, checked by vLLM (max_model_len=…, scheduling_policy="priority", …).

    Raises `EngineStartError` and `EngineArgumentError` (live), `EngineUnreachable`, `EngineStalled` and `EngineError`
    (endpoint), `RecordingError` (replay, or a FILE that exists), and `InvalidValue` for an argument that cannot work.
    """
    report = progress or _OneLine(model)
    live = Live(model, vllm_arguments, idle_s, linger_s, stall_s, tuple(adapters))
    if engine.startswith(_RECORD):
        return await _recording(live, report, Path(engine.removeprefix(_RECORD)))
    source = _choose(engine, live, recording)
    if source is not live and vllm_arguments:
        named = ", ".join(vllm_arguments)
        raise InvalidValue(f"{named}: engine arguments are for an engine started here; this one is shared or replayed")
    return await source.connect(report)


def has_vllm() -> bool:
    """Whether "auto" would start vLLM on this machine: it is installed, and LABKIT_ENGINE does not say "none"."""
    return importlib.util.find_spec("vllm") is not None and os.environ.get("LABKIT_ENGINE") != "none"


def prepare(engine: str = "auto", model: str = "small") -> None:
    """Start to import vLLM in the background, if `connect(engine, model)` would start an engine here: call it early.

    Returns at once, says nothing and raises nothing: what goes wrong is told by `connect`. A second call does nothing.
    """
    with contextlib.suppress(Exception):
        if has_vllm() and isinstance(_choose(engine, Live(model), None), Live):
            start_host()


async def _recording(live: Live, report: Progress, path: Path) -> Engine:
    """A live engine whose answers are written to `path`; it is given back where `path` cannot be begun."""
    check_new(path)  # before an engine is started for nothing
    engine = await live.connect(report)
    try:
        return engine.recording(path)
    except BaseException:
        await engine.aclose()
        raise


def _choose(engine: str, live: Live, recording: Path | str | None) -> EngineSource:
    address = os.environ.get("LABKIT_BASE_URL", "")
    if engine == "auto":
        engine = "endpoint" if address else "vllm" if has_vllm() else "replay"
    if engine == "endpoint" and not address:
        raise InvalidValue("engine 'endpoint' needs LABKIT_BASE_URL, an address like http://127.0.0.1:8000/v1")
    match engine:
        case "vllm":
            return live
        case "replay":
            return Replayed(live.model, recording)
        case "endpoint":
            return Shared(address, live.model, os.environ.get("LABKIT_API_KEY", ""), live.stall_s, live.adapters)
        case _ if engine.startswith(("http://", "https://")):
            return Shared(engine, live.model, os.environ.get("LABKIT_API_KEY", ""), live.stall_s, live.adapters)
    raise InvalidValue(f"engine {engine!r} is unknown; use auto, vllm, endpoint, replay, record:FILE or an http address")


class _OneLine:
    """Prints progress as one growing line: "small: importing vLLM… 5 s of about 9 s… loading weights… ready in 9.3 s"."""

    def __init__(self, model: str) -> None:
        self._begin = f"{model_name(model)}: "
        self._step = ""

    def __call__(self, step: str) -> None:
        finished = step.startswith(("ready in", "connected to", "replaying"))
        told = step.removeprefix(f"{self._step}: ")  # the time of a step that has been named
        print(f"{self._begin}{told}{'' if finished else '… '}", end="\n" if finished else "", flush=True)
        self._begin = ""
        if told == step:
            self._step = step
