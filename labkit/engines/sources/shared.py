"""An engine that somebody else runs: any OpenAI-compatible endpoint at an address."""

from __future__ import annotations

from dataclasses import dataclass, field

from labkit.engines.endpoint import Dialect, OpenAIEngine
from labkit.engines.engine import Engine
from labkit.engines.metrics import MetricsSnapshot, parse_metrics
from labkit.engines.models import LAB_MODELS, adapter_name, chosen_instead, tokenizer_folder
from labkit.engines.provenance import Provenance, call_text, today
from labkit.engines.sources.live import Progress
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Shared:
    """An endpoint at `base_url` that serves `model` and its LoRA `adapters`.

    It may be silent for `stall_s` seconds before `EngineStalled`.
    """

    base_url: str = field(repr=False)  # it may hold a password
    model: str
    api_key: str = field(default="", repr=False)
    stall_s: float = 120.0
    adapters: tuple[str, ...] = ()

    async def connect(self, report: Progress) -> Engine:
        """Ask what it serves. Raises `EngineUnreachable`, `EngineError`; `InvalidValue` where it does not serve `model`."""
        name = chosen_instead(self.model) or self.model
        endpoint = OpenAIEngine(self.base_url, self.api_key, name, stall_s=self.stall_s)
        try:
            dialect = await endpoint.probe()
            self._check_served(endpoint, dialect)
        except BaseException:
            await endpoint.aclose()
            raise
        report(f"connected to {endpoint.base_url}")
        return Engine(
            model=name,
            context_window=dialect.context_window,
            provenance=self._provenance(endpoint, dialect),
            tokenizer_path=tokenizer_folder(self.model),
            connection=SharedConnection(endpoint, self.api_key),
        )

    def _check_served(self, endpoint: OpenAIEngine, dialect: Dialect) -> None:
        served = ", ".join(dialect.models[:10])
        if dialect.models and endpoint.model not in dialect.models:
            hint = f" (or set {LAB_MODELS[self.model]})" if self.model in LAB_MODELS else ""
            raise InvalidValue(f"{endpoint.base_url} does not serve {endpoint.model!r}; it has {served}{hint}")
        for adapter in map(adapter_name, self.adapters if dialect.models else ()):
            if adapter not in dialect.models:
                raise InvalidValue(
                    f"{endpoint.base_url} does not serve the adapter {adapter!r}; it has {served}. Start it with "
                    f"--enable-lora --lora-modules {adapter}=FOLDER"
                )

    def _provenance(self, endpoint: OpenAIEngine, dialect: Dialect) -> Provenance:
        return Provenance(
            kind="endpoint",
            machine=endpoint.base_url,
            device="unknown to the client",
            engine="vLLM" if dialect.vllm else "OpenAI-compatible",
            engine_version=dialect.version or "unknown",
            model=endpoint.model,
            date=today(),
            command=call_text("endpoint", self.model, {}),
        )


class SharedConnection:
    """The client of an endpoint."""

    def __init__(self, endpoint: OpenAIEngine, api_key: str) -> None:
        self._endpoint = endpoint
        self.url = endpoint.base_url
        self.api_key = api_key
        self.log = None

    async def handler(self) -> OpenAIEngine:
        """The client."""
        return self._endpoint

    async def metrics(self) -> MetricsSnapshot:
        """The endpoint's metrics. Raises `EngineError` or `MetricMissing` where it exports none."""
        return parse_metrics(await self._endpoint.get_text("/metrics", root=True))

    async def aclose(self) -> None:
        """Close the client."""
        await self._endpoint.aclose()
