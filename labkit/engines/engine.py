"""A connected engine, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.provenance import Provenance
from labkit.engines.recorder import Recorded
from labkit.request import EngineError, Event, Handler, Request, held


class Connection(Protocol):
    """What a source keeps open for an engine. Without them, `url` and `api_key` are empty, `log` is None."""

    @property
    def url(self) -> str:
        """The OpenAI base URL."""

    @property
    def api_key(self) -> str:
        """The key for it."""

    @property
    def log(self) -> Path | None:
        """The engine's log file."""

    async def handler(self) -> Handler:
        """The handler that answers now; a live engine that has stopped is started again first."""

    async def metrics(self) -> MetricsSnapshot:
        """The engine's counters now."""

    async def aclose(self) -> None:
        """Give the engine back."""


class Engine:
    """A connected engine. It is a handler: `engine(request)` streams, `complete(engine, request)` waits.

    `context_window` is in tokens, None where the endpoint does not say. `tokenizer_path` is a folder or hub id that
    `transformers.AutoTokenizer` loads, None when unknown. Close it with `aclose()` or use it as an async context manager; a
    live engine that nobody else uses stops with it, and with the process in any case.
    """

    def __init__(
        self,
        *,
        model: str,
        context_window: int | None,
        provenance: Provenance,
        tokenizer_path: str | None,
        connection: Connection,
    ) -> None:
        self.model = model
        self.context_window = context_window
        self.provenance = provenance
        self.tokenizer_path = tokenizer_path
        self._connection = connection
        self._closed = False

    @property
    def url(self) -> str:
        """The base URL that an OpenAI client needs; empty for a replay. It may change when a live engine starts again."""
        return self._connection.url

    @property
    def api_key(self) -> str:
        """The key that goes with `url`."""
        return self._connection.api_key

    @property
    def log(self) -> Path | None:
        """The live engine's log file; None for any other."""
        return self._connection.log

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream the answer to `request`; a live engine that was stopped for idleness is started again first."""
        return held(self._stream, request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self._check_open()
        async with aclosing((await self._connection.handler())(request)) as events:
            async for event in events:
                yield event

    async def metrics(self) -> MetricsSnapshot:
        """The engine's own metrics now; for a replay, the counters of the answers it has played.

        Raises `EngineError` where metrics cannot be had, `MetricMissing` where the endpoint exports none of vLLM's.
        """
        self._check_open()
        return await self._connection.metrics()

    async def aclose(self) -> None:
        """Give the engine back."""
        if not self._closed:
            self._closed = True
            await self._connection.aclose()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def recording(self, path: Path | str) -> Engine:
        """An engine that also writes this one's whole answers to `path` (see `Recorded`). Closing it closes this one too."""
        return Engine(
            model=self.model,
            context_window=self.context_window,
            provenance=self.provenance,
            tokenizer_path=self.tokenizer_path,
            connection=_RecordingConnection(self, path),
        )

    def __repr__(self) -> str:
        return f"<Engine {self.provenance.caption()}>"

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"this connection to {self.model} was closed; connect again")


class _RecordingConnection:
    """Another engine's connection, whose answers are written down."""

    def __init__(self, engine: Engine, path: Path | str) -> None:
        self._engine = engine
        self._writer = Recorded(path, engine.provenance, engine.context_window, engine.metrics)(engine)

    @property
    def url(self) -> str:
        return self._engine.url

    @property
    def api_key(self) -> str:
        return self._engine.api_key

    @property
    def log(self) -> Path | None:
        return self._engine.log

    async def handler(self) -> Handler:
        return self._writer

    async def metrics(self) -> MetricsSnapshot:
        return await self._engine.metrics()

    async def aclose(self) -> None:
        await self._engine.aclose()
