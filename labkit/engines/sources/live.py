"""An engine of this machine: vLLM, started for the first process that asks and shared with the user's others."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import labkit
from labkit.engines.endpoint import OpenAIEngine
from labkit.engines.engine import Engine
from labkit.engines.errors import EngineStartError
from labkit.engines.host import LINGER_S, Lease, lease_engine
from labkit.engines.host.arguments import model_name
from labkit.engines.metrics import MetricsSnapshot, parse_metrics
from labkit.engines.models import adapter_arguments, adapter_name, lab_model
from labkit.engines.provenance import Provenance, call_text, gpu, machine, today
from labkit.request import InvalidValue

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Live:
    """A live engine that serves `model` with vLLM's `arguments`, and LoRA `adapters` of it.

    It is stopped when it has served no request for `idle_s` seconds, and the next request starts it again. `linger_s` is how
    long the process that keeps vLLM imported waits for another engine, `stall_s` how long the engine may send nothing, both
    in seconds. Raises `InvalidValue` for times out of range.
    """

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    idle_s: float = 1200.0
    linger_s: float = LINGER_S
    stall_s: float = 120.0
    adapters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.idle_s > 0:
            raise InvalidValue(f"idle_s is {self.idle_s}; allow the engine some seconds without a request")
        if not 0 <= self.linger_s < math.inf:
            raise InvalidValue(f"linger_s is {self.linger_s}; give seconds, or 0 to keep nothing for the next engine")
        if not self.stall_s > 0:
            raise InvalidValue(f"stall_s is {self.stall_s}; allow the engine some seconds")

    async def connect(self, report: Progress) -> Engine:
        """Attach to the engine; it is started first where it does not run.

        Raises `EngineStartError`, `EngineArgumentError`, and `InvalidValue` for a model that does not exist.
        """
        if importlib.util.find_spec("vllm") is None:
            raise EngineStartError("vLLM is not installed here; run `labkit doctor`, or use engine='replay' or an endpoint")
        path = lab_model(self.model)
        arguments = {**adapter_arguments(self.model, self.adapters), **self.arguments}
        started = time.monotonic()
        connection = LiveConnection(self, path, arguments, report)
        try:
            first = await connection.handler()
        except BaseException:
            await connection.aclose()
            raise
        report(f"ready in {time.monotonic() - started:.1f} s")
        return Engine(
            model=first.model,
            context_window=first.dialect.context_window,
            provenance=self._provenance(first, connection.lease),
            tokenizer_path=path,
            connection=connection,
        )

    def _provenance(self, engine: OpenAIEngine, lease: Lease) -> Provenance:
        device, driver = ("CPU", "") if lease.info.on_cpu else gpu() or ("GPU", "")
        return Provenance(
            kind="live",
            machine=machine(),
            device=device,
            engine="vLLM",
            engine_version=engine.dialect.version,
            model=engine.model,
            date=today(),
            command=call_text("vllm", self.model, self._settings()),
            driver=driver,
            arguments={name: _portable(value) for name, value in lease.info.arguments.items()},
        )

    def _settings(self) -> dict[str, Any]:
        adapters = {"adapters": tuple(map(adapter_name, self.adapters))} if self.adapters else {}
        return {**adapters, **_portable(self.arguments)}


def _portable(value: Any) -> Any:
    """`value` with the lab's own folder cut out of its paths, so that it reads alike on every machine.

    Of a temporary file, such as a step log, only the name stays.
    """
    if isinstance(value, Mapping):
        return {name: _portable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_portable, value))
    if not isinstance(value, str):
        return value
    if value.startswith(f"{tempfile.gettempdir()}/"):
        return Path(value).name
    return value.replace(f"{Path(labkit.__file__).parents[1]}/", "")


class LiveConnection:
    """A lease on the engine and a client for it, both renewed when the engine has stopped."""

    def __init__(self, source: Live, path: str, arguments: Mapping[str, Any], report: Progress) -> None:
        self._source = source
        self._path = path
        self._arguments = arguments
        self._report = report
        self._starting = asyncio.Lock()
        self._lease: Lease | None = None
        self._endpoint: OpenAIEngine | None = None

    @property
    def lease(self) -> Lease:
        """The lease on the engine, as of its last start."""
        assert self._lease is not None, "connected before anybody asks"
        return self._lease

    @property
    def url(self) -> str:
        """The running engine's base URL."""
        return self.lease.info.url

    @property
    def api_key(self) -> str:
        """The running engine's key."""
        return self.lease.info.api_key

    @property
    def log(self) -> Path:
        """The running engine's log file."""
        return self.lease.info.log

    async def handler(self) -> OpenAIEngine:
        """The client of the engine, which is started again where it has stopped."""
        if (running := self._running()) is not None:
            return running
        async with self._starting:
            # Another request may have started it while this one waited.
            return self._running() or await self._start()

    async def metrics(self) -> MetricsSnapshot:
        """The engine's own metrics; an engine that has stopped is started again first."""
        return parse_metrics(await (await self.handler()).get_text("/metrics", root=True))

    async def aclose(self) -> None:
        """Give the lease back."""
        if self._endpoint is not None:
            await self._endpoint.aclose()
        if self._lease is not None:
            self._lease.close()

    def _running(self) -> OpenAIEngine | None:
        return self._endpoint if self._lease is not None and self._lease.alive else None

    async def _start(self) -> OpenAIEngine:
        if self._lease is not None and self._endpoint is not None:
            self._report(f"the engine had stopped ({self._lease.end()}); starting it again")
            self._lease.close()
            self._endpoint = None
        source = self._source
        lease = await lease_engine(
            self._path, self._arguments, progress=self._report, idle_s=source.idle_s, linger_s=source.linger_s
        )
        info = lease.info
        endpoint = OpenAIEngine(info.url, info.api_key, model_name(self._path), stall_s=source.stall_s)
        try:
            await endpoint.probe()
        except BaseException:
            lease.close()
            await endpoint.aclose()
            raise
        self._lease, self._endpoint = lease, endpoint
        return endpoint
