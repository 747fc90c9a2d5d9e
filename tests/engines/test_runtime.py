"""The meeting place of host and clients is private, and its protocol survives any cut of its bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.engines import EngineArgumentError, EngineInfo, EngineStartError
from labkit.engines.host import client, lease_engine, runtime_dir, start_host
from labkit.engines.host.arguments import ArgumentCheck, known_names, kv_cache_bytes, may_think, with_defaults
from labkit.engines.host.child import Place
from labkit.engines.host.clients import Clients
from labkit.engines.host.loop import Host
from labkit.engines.host.processes import checked_port
from labkit.engines.host.protocol import (
    LONGEST_ANSWER,
    LONGEST_LINE,
    LeaseRequest,
    Lines,
    ListRequest,
    Malformed,
    PrepareRequest,
    encode,
    parse_request,
)
from labkit.request import LabError

MIB = 1 << 20
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["lease", "list", "prepare"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


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


@pytest.mark.parametrize("size", [13, 1 << 16])
@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"garbage", b"\xff\xfe\x00", b"{", b'{"op": "list"', b"null", b'"list"', b"[]", b"7", b"\xed\xa0\x80"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000),
    ],
)
def test_a_garbage_line_is_told_and_the_next_one_is_read(line: bytes, size: int) -> None:
    data, lines = line + b"\n" + ListRequest().encode(), Lines()
    got = [message for start in range(0, len(data), size) for message in lines.feed(data[start : start + size])]
    assert [type(message) for message in got] == [Malformed, dict]
    assert got[1] == {"op": "list"}


def test_a_message_that_does_not_fit_a_socket_arrives_whole_and_so_does_the_next() -> None:
    listener, (host_end, client_end) = socket.socket(socket.AF_UNIX), socket.socketpair()
    with listener, host_end, client_end:
        client_end.setblocking(False)
        clients, heard = Clients(listener, host_end), []
        client_end.sendall(encode({"op": "list"}))
        ((client, data),) = clients.heard(5)
        assert list(client.lines.feed(data)) == [{"op": "list"}]
        large = {"event": "engines", "engines": ["x" * 1_000_000]}
        client.tell(large)
        client.tell({"event": "lost"})  # the client has read nothing yet, so it loses this one
        lines = Lines(LONGEST_ANSWER)
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                heard += lines.feed(client_end.recv(1 << 16))
            assert list(clients.heard(0)) == []
        client.tell({"event": "next"})
        heard += lines.feed(client_end.recv(1 << 16))
        assert heard == [large, {"event": "next"}]
        client_end.close()
        assert list(clients.heard(5)) == [(client, None)], "a client that leaves is heard, whatever it was told"


def test_a_client_that_leaves_within_a_message_is_heard_to_leave() -> None:
    listener, (host_end, client_end) = socket.socket(socket.AF_UNIX), socket.socketpair()
    with listener, host_end, client_end:
        clients = Clients(listener, host_end)
        client_end.sendall(b"\n")
        ((client, _),) = clients.heard(5)
        client.tell({"event": "engines", "engines": ["x" * 1_000_000]})
        client_end.close()
        assert None in [data for _ in range(2) for _, data in clients.heard(1)]
        clients.drop(client)
        assert len(clients) == 0


def test_a_line_without_end_is_told_once_and_not_kept() -> None:
    lines, piece = Lines(), b"x" * (1 << 16)
    tracemalloc.start()
    told = [message for _ in range(200) for message in lines.feed(piece)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(message) for message in told] == [Malformed]
    assert str(LONGEST_LINE) in told[0].reason
    assert most < 5 * LONGEST_LINE, "of 13 MB that arrived"
    assert list(lines.feed(b"its end\n" + ListRequest().encode())) == [{"op": "list"}]


def test_the_longest_line_that_is_taken_has_as_many_bytes_as_the_bound_says() -> None:
    for more, kind in ((0, dict), (1, Malformed)):
        line = b'{"a":"' + b"x" * (LONGEST_LINE - 8 + more) + b'"}'
        assert len(line) == LONGEST_LINE + more
        assert [type(message) for message in Lines().feed(line + b"\n")] == [kind]


@given(st.dictionaries(st.sampled_from(["op", "model", "arguments", "idle_s"]), ANY_JSON))
def test_any_object_is_a_request_or_told_to_be_none(message: dict) -> None:
    parsed = parse_request(message)
    if isinstance(parsed, LeaseRequest):
        assert (parsed.model, dict(parsed.arguments), parsed.idle_s) == tuple(
            message[name] for name in ("model", "arguments", "idle_s")
        )
        assert parsed.model
        assert parsed.idle_s > 0
    elif isinstance(parsed, ListRequest):
        assert message["op"] == "list"
    elif isinstance(parsed, PrepareRequest):
        assert message["op"] == "prepare"
    else:
        assert parsed.reason


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"op": "stop"}, "op"),
        ({"op": ["list"]}, "op"),
        ({"model": ""}, "model"),
        ({"model": "a\0b"}, "model"),
        ({"model": None}, "model"),
        ({"model": "\ud800"}, "model"),
        ({"arguments": []}, "arguments"),
        ({"arguments": "max_model_len=5"}, "arguments"),
        ({"idle_s": 0}, "idle_s"),
        ({"idle_s": True}, "idle_s"),
        ({"idle_s": "5"}, "idle_s"),
        ({"idle_s": float("nan")}, "idle_s"),
    ],
)
def test_the_wrong_field_of_a_request_is_named(wrong: dict, named: str) -> None:
    good = json.loads(LeaseRequest("model", {"max_model_len": 5}, 10.0).encode())
    assert parse_request(good) == LeaseRequest("model", {"max_model_len": 5}, 10.0)
    refused = parse_request({**good, **wrong})
    assert isinstance(refused, Malformed)
    assert refused.reason.startswith(f"{named} is")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"dtype": object()}, "cannot be told to vLLM"), ({"chat_template": "x" * 200_000}, "200.* bytes, at most 131072")],
)
def test_arguments_that_no_line_can_carry_are_refused_before_anything_starts(arguments: dict, says: str) -> None:
    with pytest.raises(EngineArgumentError, match=says):
        asyncio.run(lease_engine("some-org/some-model", arguments))


@pytest.mark.parametrize("imported", [True, False])
def test_a_host_that_was_asked_to_prepare_waits_for_an_engine_unless_it_cannot_make_one_or_be_found(imported: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are too long for Unix sockets
        address = Path(folder) / "host.sock"
        listener, (theirs, ours) = socket.socket(socket.AF_UNIX), socket.socketpair()
        listener.bind(str(address))
        listener.listen()
        host = Host(listener, address, 600.0, theirs)
        host._check = ArgumentCheck.__new__(ArgumentCheck) if imported else None
        running = threading.Thread(target=host.run, daemon=True)
        running.start()
        with ours:
            ours.settimeout(60)
            ours.sendall(PrepareRequest().encode())
            assert json.loads(ours.recv(1 << 16)) == {"event": "prepared"}
        if imported:
            time.sleep(1.2)  # more than two of its ticks without a client
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(address))
                client.sendall(ListRequest().encode())
                assert json.loads(client.recv(1 << 16)) == {"event": "engines", "host_pid": os.getpid(), "engines": []}
            assert running.is_alive()
            address.unlink()  # as when the folder is cleaned up: nobody can come
        running.join(60)
        assert not running.is_alive()
        listener.close()


def test_starting_a_host_in_the_background_neither_waits_nor_complains(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    go, ended = threading.Event(), threading.Event()

    def connect(*_: object) -> socket.socket:
        assert go.wait(60)
        ended.set()
        raise EngineStartError("vLLM is broken")

    monkeypatch.setattr(client, "_connect", connect)
    start_host()
    assert not ended.is_set()
    go.set()
    assert ended.wait(60)
    for thread in threading.enumerate():
        if thread.name == "labkit-start-host":
            thread.join(60)
    assert capfd.readouterr() == ("", "")


def test_an_engines_key_is_not_shown_with_it() -> None:
    values = {name: "the-key" if name == "api_key" else "x" for name in EngineInfo.__slots__}
    assert "the-key" not in repr(EngineInfo.parse(values))
    assert "the-key" not in repr(Place(Path("x"), "the-key"))


@pytest.mark.parametrize("port", ["8000", 65536, -1, True, 1.5, None])
def test_a_port_that_is_none_is_refused(port: object) -> None:
    with pytest.raises(EngineArgumentError, match="65535"):
        checked_port(port)


def model(folder: Path, **config: int) -> str:
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
