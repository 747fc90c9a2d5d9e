"""The meeting place of host and clients is private, and its protocol survives any cut of its bytes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines.host import runtime_dir
from labkit.engines.host.arguments import known_names, kv_cache_bytes, may_think, with_defaults
from labkit.engines.host.runtime import Lines, encode
from labkit.request import LabError

MIB = 1 << 20


def test_the_runtime_directory_is_for_its_owner_only(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    path = Path("/tmp") / f"lkt-{tmp_path_factory.getbasetemp().name}-d"
    monkeypatch.setenv("LABKIT_RUNTIME_DIR", str(path))
    try:
        assert runtime_dir() == path
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        path.chmod(0o755)
        with pytest.raises(LabError, match="chmod 700"):
            runtime_dir()
    finally:
        path.rmdir()


def test_a_runtime_directory_too_long_for_a_socket_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABKIT_RUNTIME_DIR", str(tmp_path / ("x" * 60)))
    with pytest.raises(LabError, match="shorter"):
        runtime_dir()


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())), st.integers(1, 7))
def test_messages_survive_any_cut(messages: list[dict], size: int) -> None:
    data = b"".join(encode(message) for message in messages)
    lines = Lines()
    got = [message for start in range(0, len(data), size) for message in lines.feed(data[start : start + size])]
    assert got == messages


def model(folder: Path, **config: int) -> str:
    import json

    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_the_kv_cache_holds_four_full_sequences_within_bounds(tmp_path: Path) -> None:
    # Llama 3.1 8B: 32 layers, 8 KV heads of 128, bf16: 128 KiB a token.
    shape = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    eight_billion = model(tmp_path, **shape, max_position_embeddings=131072)
    assert kv_cache_bytes(eight_billion, 2048) == 4 * 2048 * 128 * 1024
    assert kv_cache_bytes(eight_billion) == 2048 * MIB
    assert kv_cache_bytes(eight_billion, 16) == 64 * MIB
    assert kv_cache_bytes("some-org/some-model") == 1024 * MIB


def test_given_arguments_win_over_the_labs_defaults(tmp_path: Path) -> None:
    folder = model(tmp_path, num_hidden_layers=1, num_attention_heads=1, hidden_size=64, max_position_embeddings=64)
    assert with_defaults(folder, {}, on_cpu=True)["enforce_eager"] is True
    assert with_defaults(folder, {"enforce_eager": False}, on_cpu=True)["enforce_eager"] is False
    assert "kv_cache_memory_bytes" not in with_defaults(folder, {"gpu_memory_utilization": 0.5}, on_cpu=True)
    assert "enforce_eager" not in with_defaults(folder, {}, on_cpu=False)


def test_only_a_model_whose_template_reasons_gets_a_reasoning_parser(tmp_path: Path) -> None:
    assert not may_think(str(tmp_path))
    (tmp_path / "chat_template.jinja").write_text("plain")
    assert "reasoning_parser" not in with_defaults(str(tmp_path), {}, on_cpu=True)
    (tmp_path / "chat_template.jinja").write_text("{{ '<think>' }}")
    assert with_defaults(str(tmp_path), {}, on_cpu=True)["reasoning_parser"] == "think_marks"


def test_the_argument_names_read_from_vllms_source_are_those_of_its_classes() -> None:
    pytest.importorskip("vllm")
    import dataclasses

    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    fields = (*dataclasses.fields(AsyncEngineArgs), *dataclasses.fields(FrontendArgs))
    assert known_names() == {field.name for field in fields if not field.name.startswith("_")}
