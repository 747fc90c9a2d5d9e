"""No path of an engine answers without its key, and none under a name that is not this machine's."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from labkit.engines import Engine
from labkit.engines.host.door import KEY_VARIABLE, Door

PORT = 4321
KEY = "the-key"


def knock(*headers: tuple[bytes, bytes], kind: str = "http", **scope: Any) -> list[str]:
    """What came of a request with these headers: "passed" when the application saw it, else what was sent back."""
    seen: list[str] = []

    async def application(*_: object) -> None:
        seen.append("passed")

    async def send(message: Any) -> None:
        seen.append(str(message.get("status", message["type"])))

    async def receive() -> Any:
        raise AssertionError("a refusal needs nothing of the request")

    asked = {"type": kind, "path": "/", "server": ("127.0.0.1", PORT), "headers": list(headers), **scope}
    asyncio.run(Door(application)(asked, receive, send))
    return seen


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


HOST = (b"host", b"127.0.0.1:4321")
GOOD = (b"authorization", b"Bearer the-key")


@pytest.mark.parametrize("name", [b"127.0.0.1:4321", b"localhost:4321", b"LocalHost:4321", b"[::1]:4321"])
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_key_under_the_machines_own_names_opens(name: bytes, scheme: bytes, kind: str) -> None:
    assert knock((b"host", name), (b"authorization", scheme + b" the-key"), kind=kind) == ["passed"]


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"evil.example:4321"],
        [b"127.0.0.1.evil.example:4321"],
        [b"localhost.evil.example:4321"],
        [b"127.0.0.1"],
        [b"127.0.0.1:4322"],
        [b"0.0.0.0:4321"],
        [b"127.0.0.1:4321", b"evil.example:4321"],
        [b"127.0.0.1:4321, evil.example:4321"],
        [b"user@127.0.0.1:4321"],
        [b"::1:4321"],
    ],
)
def test_a_foreign_host_is_refused_even_with_the_key(hosts: list[bytes]) -> None:
    assert knock(*((b"host", host) for host in hosts), GOOD)[0] == "403"
    assert knock(*((b"host", host) for host in hosts), GOOD, kind="websocket") == ["websocket.close"]


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [b""],
        [b"the-key"],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer  the-key"],
        [b"Bearer the-ke"],
        [b"Bearer the-key2"],
        [b"Bearer THE-KEY"],
        [b"Basic the-key"],
        [b"Bearer \xff"],
        [b"Bearer the-key", b"Bearer other"],
    ],
)
def test_a_wrong_or_missing_key_is_refused(keys: list[bytes]) -> None:
    assert knock(HOST, *((b"authorization", key) for key in keys))[0] == "401"
    assert knock(HOST, *((b"authorization", key) for key in keys), kind="websocket") == ["websocket.close"]


def test_a_connection_of_an_unknown_kind_or_address_stays_closed() -> None:
    with pytest.raises(PermissionError):
        knock(HOST, kind="webtransport")
    assert knock(HOST, GOOD, server=None)[0] == "403"
    assert knock(kind="lifespan") == ["passed"], "the server's own start and end are no request"


def test_without_a_key_there_is_no_door_and_so_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(KeyError, match=KEY_VARIABLE):
        knock(HOST)


def routes(engine: Engine) -> set[tuple[str, str]]:
    """(method, path) of all that vLLM serves: what its log lists as it starts, and its own description of itself."""
    assert engine.log is not None
    found = {
        (method, path)
        for path, methods in re.findall(r"Route: (\S+), Methods: ([A-Z, ]+)", engine.log.read_text())
        for method in methods.split(", ")
    }
    answer = httpx.get(engine.url.removesuffix("/v1") + "/openapi.json", headers=key(engine), timeout=60)
    for path, methods in answer.json()["paths"].items():
        found |= {(method.upper(), path) for method in methods}
    return {(method, re.sub(r"{[^}]*}", "x", path)) for method, path in found}


def key(engine: Engine) -> dict[str, str]:
    return {"Authorization": f"Bearer {engine.api_key}"}


@pytest.mark.live
def test_every_route_of_a_running_engine_is_closed(live: Engine) -> None:
    address = urlsplit(live.url).netloc
    known = routes(live)
    paths = {path for _, path in known}
    assert {"/v1/chat/completions", "/invocations", "/tokenize", "/metrics", "/health", "/docs"} <= paths
    # Beside what is listed: mounted applications, websockets, preflights, paths that are none.
    known |= {("GET", path) for path in ("/", "/metrics/", "/v1/realtime", "//v1/models", "/v1/../metrics", "/nowhere")}
    known |= {(method, path) for method in ("OPTIONS", "HEAD", "GET", "POST") for path in paths}
    strangers = [
        (401, address, {}),
        (401, address, {"Authorization": "Bearer guess"}),
        (403, "evil.example:" + address.partition(":")[2], key(live)),
    ]
    connection = http.client.HTTPConnection(address, timeout=60)
    for method, path in sorted(known):
        for status, host, headers in strangers:
            preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
            connection.request(method, path, body=b"{}", headers={**preflight, **headers, "Host": host})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, (method, path, host)
            assert answer.getheader("access-control-allow-origin") is None, (method, path)
    connection.close()


@pytest.mark.live
def test_a_websocket_without_the_key_is_refused_in_its_handshake(live: Engine) -> None:
    address = urlsplit(live.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=60) as connection:
        lines = [
            "GET /v1/realtime HTTP/1.1",
            f"Host: {address.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
            "",
            "",
        ]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 403")


@pytest.mark.live
def test_whoever_has_the_key_finds_the_engine_as_vllm_made_it(live: Engine) -> None:
    root = live.url.removesuffix("/v1")
    for path in ("/health", "/metrics", "/version", "/v1/models", "/openapi.json"):
        assert httpx.get(root + path, headers=key(live), timeout=60).status_code == 200, path
    body = {"model": live.model, "prompt": "hello"}
    assert json.loads(httpx.post(root + "/tokenize", json=body, headers=key(live), timeout=60).text)["count"] > 0
