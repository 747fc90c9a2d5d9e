"""Adapters beside a model: what vLLM is told, and what is refused before anything is started."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from labkit.engines import connect
from labkit.engines.endpoint import Dialect, OpenAIEngine
from labkit.engines.models import adapter_arguments
from labkit.lab import adapter_path
from labkit.request import InvalidValue


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABKIT_BASE_URL", "LABKIT_API_KEY", "LABKIT_SMALL", "LABKIT_LARGE"):
        monkeypatch.delenv(name, raising=False)


def folder(path: Path, rank: int, base: str = "someone/model") -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"r": rank, "base_model_name_or_path": base}))
    return path


def test_no_adapters_change_nothing() -> None:
    assert adapter_arguments("large", ()) == {}


def test_the_labs_adapters_go_by_their_names() -> None:
    given = adapter_arguments("large", ("house",))
    assert given["enable_lora"] is True
    assert given["lora_modules"] == [{"name": "house", "path": str(adapter_path("house").resolve())}]
    assert (given["max_loras"], given["max_lora_rank"]) == (1, 32)


@pytest.mark.parametrize(("rank", "allowed"), [(1, 8), (8, 8), (9, 16), (64, 64), (129, 256)])
def test_the_rank_is_the_least_that_vllm_allows(tmp_path: Path, rank: int, allowed: int) -> None:
    found = adapter_arguments("some/model", (str(folder(tmp_path / "mine", rank)),))
    assert found["max_lora_rank"] == allowed
    assert found["lora_modules"][0]["name"] == "mine"


def test_an_adapter_for_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue, match="trained for the lab's 'large', not for 'small'"):
        asyncio.run(connect("vllm", "small", adapters=("house",), progress=str))
    monkeypatch.setenv("LABKIT_LARGE", "someone/model")
    with pytest.raises(InvalidValue, match="not for 'someone/model'"):
        adapter_arguments("large", ("house",))


def test_an_adapter_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"no adapter 'nonesuch': give one of desk, "):
        adapter_arguments("large", ("nonesuch",))


def test_an_endpoint_must_serve_the_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    async def probe(self: OpenAIEngine) -> Dialect:
        self.dialect = Dialect(vllm=True, models=("large", "house"))
        return self.dialect

    monkeypatch.setattr(OpenAIEngine, "probe", probe)

    async def attach(*adapters: str) -> str:
        async with await connect("http://127.0.0.1:9/v1", "large", adapters=adapters, progress=str) as engine:
            return engine.model

    assert asyncio.run(attach("house")) == "large"
    with pytest.raises(InvalidValue, match="does not serve the adapter 'desk'; it has large, house"):
        asyncio.run(attach("house", "desk"))
