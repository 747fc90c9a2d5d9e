"""One call for an engine, whatever this machine has: a live vLLM, an endpoint somebody shares, or a recording."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import labkit
from labkit.engines.endpoint import OpenAIEngine
from labkit.engines.errors import EngineStartError, RecordingError
from labkit.engines.host import Lease, lease_engine
from labkit.engines.host.arguments import model_name
from labkit.engines.metrics import MetricsSnapshot, parse_metrics
from labkit.engines.provenance import Provenance, arguments_text, gpu, machine, today
from labkit.engines.recorder import Recorded
from labkit.engines.replay import Recording
from labkit.request.errors import EngineError, InvalidRequest
from labkit.request.handler import Handler
from labkit.request.values import Event, Request

Progress = Callable[[str], None]
LAB_MODELS = ("small", "large")
_RECORD = "record:"
_LAB_OVERRIDES = {"small": "LABKIT_SMALL", "large": "LABKIT_LARGE"}


class Engine:
    """A connected engine. It is a handler: `engine(request)` streams, `complete(engine, request)` waits.

    `context_window` is in tokens, None where the endpoint does not say. `tokenizer_path` is a folder or hub id that
    `transformers.AutoTokenizer` loads, None when unknown. `url` and `api_key` are what an OpenAI client needs, empty for a
    replay. `log` is the live engine's log file. Close it with `aclose()` or use it as an async context manager; a live
    engine that nobody else uses stops with it, and with the process in any case.
    """

    def __init__(
        self,
        *,
        model: str,
        context_window: int | None,
        provenance: Provenance,
        tokenizer_path: str | None,
        source: Callable[[], Awaitable[Handler]],
        metrics: Callable[[], Awaitable[MetricsSnapshot]],
        url: str = "",
        api_key: str = "",
        log: Path | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.model = model
        self.context_window = context_window
        self.provenance = provenance
        self.tokenizer_path = tokenizer_path
        self.url = url
        self.api_key = api_key
        self.log = log
        self._source = source
        self._close = close
        self._metrics = metrics
        self._closed = False

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream the answer to `request`; a live engine that has been stopped for idleness starts again first."""
        async with aclosing((await self._handler())(request)) as events:
            async for event in events:
                yield event

    async def metrics(self) -> MetricsSnapshot:
        """The engine's own metrics now; of a replay, the counters of what it played. Raises `EngineError` without any."""
        self._check_open()
        return await self._metrics()

    async def aclose(self) -> None:
        """Give the engine back."""
        if not self._closed:
            self._closed = True
            if self._close is not None:
                await self._close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def recording(self, path: Path | str) -> Engine:
        """This engine, with every whole answer written to `path` (see `Recorded`). Closing it closes this one."""
        writer = Recorded(path, self.provenance, self.context_window, self.metrics)(self)

        async def source() -> Handler:
            return writer

        return Engine(
            model=self.model,
            context_window=self.context_window,
            provenance=self.provenance,
            tokenizer_path=self.tokenizer_path,
            source=source,
            metrics=self.metrics,
            url=self.url,
            api_key=self.api_key,
            log=self.log,
            close=self.aclose,
        )

    def __repr__(self) -> str:
        return f"<Engine {self.provenance.caption()}>"

    async def _handler(self) -> Handler:
        self._check_open()
        return await self._source()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"this connection to {self.model} was closed; connect again")


async def connect(
    engine: str = "auto",
    model: str = "small",
    *,
    progress: Progress | None = None,
    recording: Path | str | None = None,
    idle_s: float = 1200.0,
    linger_s: float = 20.0,
    stall_s: float = 120.0,
    **vllm_arguments: Any,
) -> Engine:
    """Connect to an engine that serves `model`.

    `engine`: "vllm" (live on this machine, shared with the user's other processes), "endpoint" (LABKIT_BASE_URL, with
    LABKIT_API_KEY), an http(s) base URL, "replay", "record:FILE" (live, and every answer and what the engine counted for it
    are written to FILE, for a replay; nobody else should use that engine meanwhile), or "auto": the endpoint when
    LABKIT_BASE_URL is set, else vLLM when it is installed, else a replay.
    `model`: "small" or "large" (the lab's own, or what LABKIT_SMALL and LABKIT_LARGE name), a folder, or a hub id.
    `progress` is called with each step of the start-up; by default they are printed on one line.
    `recording` is the file to replay; by default the newest in data/recordings made with `model`.
    `idle_s`: a live engine that has served no request for so long is stopped; the next request starts it again.
    `linger_s`: how long the process that keeps vLLM imported waits for another engine.
    `stall_s`: how long an engine may send nothing before `EngineStalled`.
    `vllm_arguments` are vLLM's engine arguments, checked by vLLM (max_model_len=…, scheduling_policy="priority", …).

    Raises `EngineStartError`, `EngineArgumentError`, `EngineUnreachable`, `RecordingError`, `InvalidRequest`.
    """
    report = progress or _OneLine(model)
    if engine.startswith(_RECORD):
        live = await _live(model, vllm_arguments, report, idle_s, linger_s, stall_s)
        return live.recording(engine.removeprefix(_RECORD))
    kind = _choose(engine)
    if kind == "vllm":
        return await _live(model, vllm_arguments, report, idle_s, linger_s, stall_s)
    if vllm_arguments:
        raise InvalidRequest(f"{', '.join(vllm_arguments)}: engine arguments are for engines started here, not for {kind}")
    if kind == "replay":
        return _replay(model, recording, report)
    base_url = os.environ.get("LABKIT_BASE_URL", "") if kind == "endpoint" else kind
    return await _endpoint(base_url, model, report, stall_s)


def lab_model(model: str) -> str:
    """What `model` stands for: the lab's names become folders (or what the environment names), the rest stays.

    Raises `InvalidRequest` for a path that does not exist.
    """
    if model in LAB_MODELS:
        override = os.environ.get(_LAB_OVERRIDES[model], "")
        if not override:
            from labkit.lab.models import model_path

            return str(Path(model_path(model)).resolve())
        model = override
    looks_like_path = model.startswith((".", "/", "~")) or Path(model).exists()
    if not looks_like_path:
        return model
    path = Path(model).expanduser().resolve()
    if not (path / "config.json").is_file():
        raise InvalidRequest(f"no model at {path}: a model folder holds config.json, weights and a tokenizer")
    return str(path)


def _choose(engine: str) -> str:
    if engine.startswith(("http://", "https://")):
        return engine
    if engine == "auto":
        if os.environ.get("LABKIT_BASE_URL"):
            return "endpoint"
        return "vllm" if importlib.util.find_spec("vllm") else "replay"
    if engine == "endpoint" and not os.environ.get("LABKIT_BASE_URL"):
        raise InvalidRequest("engine 'endpoint' needs LABKIT_BASE_URL, an address like http://127.0.0.1:8000/v1")
    if engine not in ("vllm", "endpoint", "replay"):
        raise InvalidRequest(
            f"engine {engine!r} is unknown; use auto, vllm, endpoint, replay, record:FILE or an http address"
        )
    return engine


async def _live(
    model: str, arguments: dict[str, Any], report: Progress, idle_s: float, linger_s: float, stall_s: float
) -> Engine:
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError("vLLM is not installed here; run `labkit doctor`, or use engine='replay' or an endpoint")
    path = lab_model(model)
    started = time.monotonic()
    lease: Lease | None = None
    endpoint: OpenAIEngine | None = None
    connected: Engine | None = None
    starting = asyncio.Lock()

    async def source() -> OpenAIEngine:
        nonlocal lease, endpoint
        if endpoint is not None and lease is not None and lease.alive:
            return endpoint
        async with starting:
            if endpoint is None or lease is None or not lease.alive:
                if lease is not None:
                    report(f"the engine had stopped ({lease.end()}); starting it again")
                    lease.close()
                lease = await lease_engine(path, arguments, progress=report, idle_s=idle_s, linger_s=linger_s)
                endpoint = OpenAIEngine(lease.info.url, lease.info.api_key, model_name(path), stall_s=stall_s)
                await endpoint.probe()
                if connected is not None:
                    connected.url, connected.api_key, connected.log = lease.info.url, lease.info.api_key, lease.info.log
            return endpoint

    async def close() -> None:
        if endpoint is not None:
            await endpoint.aclose()
        if lease is not None:
            lease.close()

    try:
        first = await source()
    except BaseException:
        await close()
        raise
    assert lease is not None
    report(f"ready in {time.monotonic() - started:.1f} s")
    device, driver = ("CPU", "") if lease.info.on_cpu else gpu() or ("GPU", "")
    provenance = Provenance(
        kind="live",
        machine=machine(),
        device=device,
        engine="vLLM",
        engine_version=first.dialect.version,
        model=first.model,
        date=today(),
        command=_command("vllm", model, arguments),
        driver=driver,
        arguments=dict(lease.info.arguments),
    )
    connected = Engine(
        model=first.model,
        context_window=first.dialect.context_window,
        provenance=provenance,
        tokenizer_path=path,
        source=source,
        metrics=lambda: _read_metrics(source),
        url=lease.info.url,
        api_key=lease.info.api_key,
        log=lease.info.log,
        close=close,
    )
    return connected


async def _endpoint(base_url: str, model: str, report: Progress, stall_s: float) -> Engine:
    name = os.environ.get(_LAB_OVERRIDES[model], model) if model in LAB_MODELS else model
    api_key = os.environ.get("LABKIT_API_KEY", "")
    endpoint = OpenAIEngine(base_url, api_key, name, stall_s=stall_s)
    try:
        dialect = await endpoint.probe()
    except BaseException:
        await endpoint.aclose()
        raise
    if dialect.models and name not in dialect.models:
        await endpoint.aclose()
        hint = f" (or set {_LAB_OVERRIDES[model]})" if model in LAB_MODELS else ""
        raise InvalidRequest(f"{base_url} does not serve {name!r}; it has {', '.join(dialect.models[:10])}{hint}")
    report(f"connected to {base_url}")
    provenance = Provenance(
        kind="endpoint",
        machine=base_url,
        device="unknown to the client",
        engine="vLLM" if dialect.vllm else "OpenAI-compatible",
        engine_version=dialect.version or "unknown",
        model=name,
        date=today(),
        command=_command("endpoint", model, {}),
    )

    async def source() -> OpenAIEngine:
        return endpoint

    return Engine(
        model=name,
        context_window=dialect.context_window,
        provenance=provenance,
        tokenizer_path=_tokenizer(model),
        source=source,
        metrics=lambda: _read_metrics(source),
        url=endpoint.base_url,
        api_key=api_key,
        close=endpoint.aclose,
    )


def _replay(model: str, path: Path | str | None, report: Progress) -> Engine:
    recording = Recording.load(path if path is not None else _newest_recording(model))
    report(f"replaying: {recording.provenance.caption()}")

    async def source() -> Handler:
        return recording

    async def metrics() -> MetricsSnapshot:
        return recording.metrics()

    return Engine(
        model=recording.provenance.model,
        context_window=recording.context_window,
        provenance=recording.provenance,
        tokenizer_path=_tokenizer(model),
        source=source,
        metrics=metrics,
    )


async def _read_metrics(source: Callable[[], Awaitable[OpenAIEngine]]) -> MetricsSnapshot:
    return parse_metrics(await (await source()).get_text("/metrics", root=True))


def recordings_dir() -> Path:
    """Where the lab's recordings are kept: data/recordings of the repository."""
    return Path(labkit.__file__).parents[1] / "data" / "recordings"


def _newest_recording(model: str) -> Path:
    found = []
    for path in sorted(recordings_dir().glob("*.jsonl")):
        recording = Recording.load(path)
        if recording.provenance.model == model:
            found.append((recording.provenance.date, path))
    if not found:
        raise RecordingError(
            f"no recording of {model!r} in data/recordings; name one with recording=, or connect to an engine"
        )
    return max(found)[1]


def _tokenizer(model: str) -> str | None:
    try:
        path = Path(lab_model(model))
    except (InvalidRequest, ImportError, OSError):
        return None
    return str(path) if path.is_dir() else None


def _command(engine: str, model: str, arguments: dict[str, Any]) -> str:
    extra = f", **{arguments_text(arguments)}" if arguments else ""
    return f"await labkit.engines.connect({engine!r}, {model!r}{extra})"


class _OneLine:
    """Prints progress as one growing line: "small: importing vLLM… loading weights… ready in 6.3 s"."""

    def __init__(self, model: str) -> None:
        self._begin = f"{model_name(model)}: "

    def __call__(self, step: str) -> None:
        finished = step.startswith(("ready in", "connected to", "replaying"))
        print(f"{self._begin}{step}{'' if finished else '… '}", end="\n" if finished else "", flush=True)
        self._begin = ""
