"""The door of every engine: it admits only requests with the engine's key and one of this machine's own names as Host.

vLLM checks the key for a few prefixes (/v1 …) and lets every OPTIONS request through. `/invocations`, which answers a chat,
`/tokenize`, `/metrics` and others stay open, and vLLM never checks the Host header. A web page could reach them: it lets its
own host name point to 127.0.0.1 (DNS rebinding), and the browser then treats the engine as a part of that page.

vLLM is started with `--middleware` and this class as the last one, which makes it the outermost: no route, no mounted
application and no websocket sees a request that it refuses.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DOOR = "labkit.engines.host.door.Door"
# vLLM's own variable for the key. It reaches both vLLM and the door, and appears on no command line.
KEY_VARIABLE = "VLLM_API_KEY"

_NAMES = ("127.0.0.1", "localhost", "[::1]")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Door:
    """ASGI middleware that refuses a foreign Host header with 403 and a wrong or missing key with 401.

    The key comes from the environment; without one no engine starts (`KeyError`).
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._credentials = f"Bearer {os.environ[KEY_VARIABLE]}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with the reason why it is refused."""
        if scope["type"] == "lifespan" or (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, *refusal)
        elif scope["type"] == "websocket":
            # Closed before it is accepted: the server answers the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            raise PermissionError(f"{scope['type']!r} connections are closed here: {refusal[1]}")

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in _own_names(scope):
            return 403, f"this engine answers only where it is asked for by its own address ({', '.join(_NAMES)}) and port"
        keys = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(keys) != 1 or not secrets.compare_digest(_scheme_in_title_case(keys[0]), self._credentials):
            return 401, "send the engine's key as 'Authorization: Bearer KEY'; connect() returns it as engine.api_key"
        return None


def _own_names(scope: Scope) -> set[bytes]:
    """The Host headers that are allowed: the machine's own names with the port on which the connection came in."""
    server = scope.get("server")
    if not server or server[1] is None:
        return set()
    return {f"{name}:{server[1]}".encode() for name in _NAMES}


def _scheme_in_title_case(credentials: bytes) -> bytes:
    """`credentials` with the scheme's name in title case, since its case does not matter (RFC 9110, 11.1)."""
    scheme, space, key = credentials.partition(b" ")
    return scheme.title() + space + key


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "refused", "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
