"""The HTTP below an endpoint's client: connections, bodies within bounds, and errors that never show the key."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from labkit.engines.address import Address
from labkit.engines.faults import fault_in, retry_after_s, words
from labkit.engines.wire import ENCODINGS, Inflate
from labkit.request import EngineError, EngineStalled, EngineUnreachable, InvalidValue, LabError

if TYPE_CHECKING:
    import httpx

MAX_ERROR = 2**16
"""The most bytes of an error's body that are read."""
MAX_BODY = 2**24
"""The most bytes, decompressed, of a body that is no answer (a list of models, metrics)."""
_ERROR_S = 10.0


class Connection:
    """An endpoint's address with the connections to it. `stall_s` is how long, in seconds, the endpoint may send nothing."""

    def __init__(self, address: Address, stall_s: float) -> None:
        if not stall_s > 0:
            raise InvalidValue(f"stall_s is {stall_s}; allow the engine some seconds")
        self.address = address
        self.stall_s = stall_s
        # A connection pool belongs to the event loop it was made on, and a notebook may use several loops.
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = weakref.WeakKeyDictionary()

    @asynccontextmanager
    async def post(self, path: str, content: bytes, root: bool = False) -> AsyncIterator[httpx.Response]:
        """The response to a POST of JSON, with its body not yet read. Raises httpx's errors unchanged."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        async with self._client().stream("POST", self.address.of(path, root), content=content, headers=headers) as response:
            yield response

    async def get(self, path: str, root: bool = False) -> str:
        """The text at `path`. Raises `EngineError` for a status other than 200, `EngineStalled`, `EngineUnreachable`."""
        import httpx

        url = self.address.of(path, root)
        shown = url.partition("?")[0]
        try:
            async with self._client().stream("GET", url) as response:
                if response.status_code != 200:
                    fault, text = await self.read_error(response)
                    raise EngineError(
                        f"{shown} answered {response.status_code}: {text}",
                        response.status_code,
                        retry_after_s(response.headers, fault),
                    )
                return (await read_all(response)).decode("utf-8", "replace")
        except httpx.TimeoutException as error:
            raise EngineStalled(f"{shown} sent nothing for {self.stall_s:g} s") from error
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error
        except LabError as error:
            raise self.without_key(error) from error.__cause__

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def read_error(self, response: httpx.Response) -> tuple[Any, str]:
        """An error's body as JSON (None where it is none) and its words, from at most `MAX_ERROR` bytes and ten seconds."""
        import httpx

        raw = bytearray()
        try:
            inflate = Inflate(response.headers.get("content-encoding", ""))
            async with asyncio.timeout(min(_ERROR_S, self.stall_s)):
                async for data in response.aiter_raw():
                    for piece in inflate.feed(data):
                        raw += piece
                        if len(raw) >= MAX_ERROR:
                            break
                    if len(raw) >= MAX_ERROR:
                        break
        except (TimeoutError, httpx.HTTPError, LabError):
            pass  # use the part that has arrived
        text = raw[:MAX_ERROR].decode("utf-8-sig", "replace").strip()
        try:
            fault = json.loads(text.removeprefix("data:"))
        except (ValueError, RecursionError):
            fault, said = None, text[:500] or response.reason_phrase
        else:
            said = words(fault_in(fault, True) if isinstance(fault, dict | list) else fault)
        return fault, self.address.hide(said or "an error without words")

    def unreachable(self, error: Exception) -> EngineUnreachable:
        """The error for a request to which no part of an answer came."""
        import httpx

        other = isinstance(error, httpx.ProtocolError) and "disconnected" not in str(error)
        what = "what answers is no HTTP" if other else "nothing answers"
        return EngineUnreachable(
            f"{what} at {self.address.base} ({self.words_of(error)}); start the engine, or correct LABKIT_BASE_URL"
        )

    def words_of(self, error: Exception) -> str:
        """The words of one of httpx's errors, with the key hidden."""
        return self.address.hide(str(error)[:200]) or type(error).__name__

    def without_key(self, error: LabError) -> LabError:
        """`error`, changed in place: the key is hidden in its words, where the endpoint sent it back."""
        error.args = tuple(self.address.hide(arg) if isinstance(arg, str) else arg for arg in error.args)
        return error

    def _client(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            try:
                client = self._clients[loop] = httpx.AsyncClient(
                    headers={**self.address.headers, "Accept-Encoding": ENCODINGS},
                    timeout=httpx.Timeout(self.stall_s, connect=10.0, pool=None),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                    # A proxy set for the internet must not catch loopback traffic.
                    trust_env=not self.address.loopback,
                )
            except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
                raise EngineUnreachable(
                    f"the proxy or certificate settings of this machine cannot be used ({type(error).__name__}); look at "
                    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
                ) from None
        return client


async def read_all(response: httpx.Response) -> bytes:
    """A whole body that is no answer, decompressed. Raises `EngineError` for one above `MAX_BODY` bytes."""
    inflate, raw = Inflate(response.headers.get("content-encoding", "")), bytearray()
    async for data in response.aiter_raw():
        for piece in inflate.feed(data):
            raw += piece
            if len(raw) > MAX_BODY:
                raise EngineError(
                    f"{response.url.path} has more than {MAX_BODY} bytes, the bound of a list of models or of metrics; "
                    "correct the endpoint's address if it is another's"
                )
    return bytes(raw)
