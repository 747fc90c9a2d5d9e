"""One call finds the engine, or says what is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.engines import (
    Engine,
    EngineInfo,
    OpenAIEngine,
    Provenance,
    RecordingError,
    choice,
    connect,
    lab_model,
    prepare,
)
from labkit.engines.host import Lease
from labkit.engines.sources import Live, Shared
from labkit.engines.sources import live as live_source
from labkit.engines.sources.live import LiveConnection
from labkit.request import EngineError, EngineUnreachable, InvalidValue, Request, complete

ORIGIN = Provenance("live", "a test", "CPU", "vLLM", "0", "m", "2026-11-20", "pytest")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABKIT_BASE_URL", "LABKIT_API_KEY", "LABKIT_SMALL", "LABKIT_LARGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("engine", "options", "error", "says"),
    [
        ("vlm", {}, InvalidValue, "use auto, vllm, endpoint, replay"),
        ("endpoint", {}, InvalidValue, "LABKIT_BASE_URL"),
        ("http://127.0.0.1:9/v1", {}, EngineUnreachable, "127.0.0.1:9"),
        ("http://127.0.0.1:9/v1", {"max_model_len": 5}, InvalidValue, "max_model_len"),
        ("replay", {"recording": "nowhere.jsonl"}, RecordingError, "no recording at nowhere.jsonl"),
        ("replay", {"model": "nonesuch"}, RecordingError, "no recording of 'nonesuch'"),
        ("vllm", {"model": "./nowhere"}, InvalidValue, "no model at"),
        ("vllm", {"idle_s": 0}, InvalidValue, "idle_s is 0"),
        ("vllm", {"idle_s": float("nan")}, InvalidValue, "idle_s is nan"),
        ("vllm", {"linger_s": -1}, InvalidValue, "linger_s is -1"),
        ("vllm", {"stall_s": 0}, InvalidValue, "stall_s is 0"),
    ],
)
def test_what_is_missing_is_named(engine: str, options: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        asyncio.run(connect(engine, progress=str, **options))


@pytest.mark.parametrize(
    ("engine", "vllm", "settings", "starts"),
    [
        ("auto", True, {}, True),
        ("vllm", True, {}, True),
        ("auto", True, {"LABKIT_BASE_URL": "http://127.0.0.1:9/v1"}, False),
        ("vllm", True, {"LABKIT_BASE_URL": "http://127.0.0.1:9/v1"}, True),
        ("auto", False, {}, False),
        ("vllm", False, {}, False),
        ("replay", True, {}, False),
        ("http://127.0.0.1:9/v1", True, {}, False),
        ("endpoint", True, {}, False),
        ("nonesuch", True, {}, False),
    ],
)
def test_only_what_would_start_an_engine_here_is_prepared(
    monkeypatch: pytest.MonkeyPatch, engine: str, vllm: bool, settings: dict[str, str], starts: bool
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(choice, "start_host", lambda: started.append(True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if vllm else None)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    prepare(engine)
    assert started == [True] * starts


def test_preparing_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def broken(name: str) -> None:
        asked.append(name)
        raise ValueError(name)

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    prepare()
    assert asked == ["vllm"]


class Kept:
    """The connection of an engine that nobody asks."""

    url, api_key, log, closed = "", "", None, False

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("file", "error", "started"),
    [("there.jsonl", RecordingError, 0), ("meanwhile.jsonl", RecordingError, 1), ("there.jsonl/below.jsonl", OSError, 1)],
)
def test_a_file_that_cannot_be_begun_keeps_no_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, error: type[Exception], started: int
) -> None:
    (tmp_path / "there.jsonl").touch()
    kept: list[Kept] = []

    async def start(self: Live, report: object) -> Engine:
        (tmp_path / "meanwhile.jsonl").touch()
        kept.append(Kept())
        return Engine(model="m", context_window=9, provenance=ORIGIN, tokenizer_path=None, connection=kept[-1])

    monkeypatch.setattr(Live, "connect", start)
    with pytest.raises(error):
        asyncio.run(connect(f"record:{tmp_path / file}", progress=str))
    assert [connection.closed for connection in kept] == [True] * started


def test_an_engine_that_does_not_answer_when_it_has_started_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []
    clients: list[OpenAIEngine] = []
    said: list[str] = []

    async def lease(*_: object, **__: object) -> Lease:
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        ends.append(theirs)
        nothing = dict.fromkeys(EngineInfo.__slots__, "")
        return Lease(EngineInfo(**nothing | {"url": "http://127.0.0.1:9/v1", "log": Path("log")}), ours)

    class Noted(OpenAIEngine):
        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, **options)
            clients.append(self)
            self.closed = False

        async def aclose(self) -> None:
            self.closed = True
            await super().aclose()

    monkeypatch.setattr(live_source, "lease_engine", lease)
    monkeypatch.setattr(live_source, "OpenAIEngine", Noted)

    async def scenario() -> None:
        connection = LiveConnection(Live("small"), "tiny", {}, said.append)
        for _ in range(2):
            with pytest.raises(EngineUnreachable):
                await connection.handler()
            assert ends[-1].recv(1) == b"", "the lease is closed"
            assert clients[-1].closed
            ends[-1].close()
        await connection.aclose()

    asyncio.run(scenario())
    assert len(ends) == 2
    assert said == [], "no engine had run, so none has stopped"


def test_a_source_is_a_value_that_does_not_show_its_key() -> None:
    shared = Shared("http://user:secret@127.0.0.1:9/v1", "small", "secret")
    assert shared == Shared("http://user:secret@127.0.0.1:9/v1", "small", "secret")
    assert "secret" not in repr(shared)
    assert Live("small", {"max_model_len": 5}) == Live("small", {"max_model_len": 5})
    assert Live("small") != Live("small", idle_s=5)


def test_importing_the_room_brings_in_no_engine_and_no_library_of_data() -> None:
    heavy = {"vllm", "torch", "transformers", "openai", "pandas", "scipy", "sklearn", "numpy", "prometheus_client"}
    script = "import sys, labkit.engines; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "labkit" in loaded
    assert not heavy & loaded


def test_the_labs_names_can_stand_for_any_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("LABKIT_SMALL", str(tmp_path))
    monkeypatch.setenv("LABKIT_LARGE", "some-org/some-model")
    assert lab_model("small") == str(tmp_path)
    assert lab_model("large") == "some-org/some-model"
    assert lab_model("other-org/model") == "other-org/model"


@pytest.mark.live
def test_a_shared_endpoint_is_used_by_its_address_and_key(live: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setenv("LABKIT_BASE_URL", live.url)
        with pytest.raises(EngineError, match="401"):
            await connect(progress=str)
        monkeypatch.setenv("LABKIT_API_KEY", live.api_key)
        with pytest.raises(InvalidValue, match=r"does not serve 'small'; it has tiny.*LABKIT_SMALL"):
            await connect(progress=str)
        monkeypatch.setenv("LABKIT_SMALL", "tiny")
        async with await connect(progress=str) as engine:
            assert (engine.model, engine.url, engine.context_window) == ("tiny", live.url, live.context_window)
            assert engine.provenance.kind == "endpoint"
            assert engine.provenance.engine == "vLLM"
            assert (await complete(engine, Request("hello", max_tokens=3))).done.usage.output_tokens == 3
            assert (await engine.metrics()).generation_tokens > 0

    asyncio.run(scenario())


@pytest.mark.live
def test_a_live_engine_says_what_and_where_it_is(live: Engine, tiny_model: Path) -> None:
    import vllm

    origin = live.provenance
    assert (origin.kind, origin.engine, origin.model, live.context_window) == ("live", "vLLM", "tiny", 2048)
    assert origin.engine_version == vllm.__version__
    assert origin.arguments["scheduling_policy"] == "priority"
    assert live.tokenizer_path == str(tiny_model)
    assert live.log is not None
    assert "KV cache size" in live.log.read_text()


@pytest.mark.live
def test_progress_tells_the_way_to_a_ready_engine(
    live: Engine, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with await connect("vllm", str(tiny_model), block_size=224):
            pass

    asyncio.run(scenario())
    line = capsys.readouterr().out
    assert line.startswith("tiny: starting the engine… ")
    assert "loading weights… " in line
    assert line.rstrip().endswith("s")
    assert line.count("\n") == 1


def test_where_an_engine_came_from_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plugin = str(Path(live_source.__file__).parent / "plugin.py")
    given = {"additional_config": {"log": str(tmp_path / "run" / "0.jsonl"), "fps": 10}, "plugin": plugin, "block_size": 32}
    assert live_source._portable(given) == {
        "additional_config": {"log": "0.jsonl", "fps": 10},
        "plugin": "labkit/engines/sources/plugin.py",
        "block_size": 32,
    }
