"""Any OpenAI-compatible chat endpoint as a handler: httpx below, one pass over the bytes, nothing else in between.

Why not the `openai` client here: it builds a pydantic object for every streamed token, and 32 streams of a small model on
two cores then spend more on the client than a lever may cost (benchmarks/engines_overhead.py compares the two). The parts
have a file each: `address` (where, and the key), `body` (what is sent), `wire` (bytes to events), `answer` (events to chunks),
`usage`, `tools`, `endings`, and `faults` (what an endpoint says when it does not answer).
"""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from labkit.engines.address import Address
from labkit.engines.answer import Answer, Failed
from labkit.engines.body import advice, body_of, encoded, limit_of, message_of
from labkit.engines.faults import fault_in, retry_after_s, status_of, too_long, words
from labkit.engines.wire import ENCODINGS, Wire
from labkit.request import clock
from labkit.request.errors import (
    ContextWindowExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    LabError,
    StreamIncomplete,
)
from labkit.request.values import Event, Request

_log = logging.getLogger("labkit.engines")
MAX_ERROR = 2**16
"""The most bytes of an error's body that are read."""
MAX_BODY = 2**24
"""The most bytes of any other body (a list of models, metrics)."""
_ERROR_S = 10.0
_REASONING_BESIDE = ("x.ai", "perplexity.ai")  # as genai-prices extracts their usage


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an endpoint understands beyond the common ground; found by asking it, so that none is sent what it refuses."""

    vllm: bool = False
    context_window: int | None = None
    models: tuple[str, ...] = ()
    version: str = ""


class OpenAIEngine:
    """A handler over `base_url` (".../v1"): streams, cancels, and names what went wrong.

    `model` is used where a request names none. `stall_s` is how long, in seconds, the endpoint may send nothing before
    `EngineStalled`. Closing the stream closes the connection, on which vLLM aborts the request. A request's priority counts
    only on an engine started with scheduling_policy="priority"; vLLM ignores it otherwise. `base_url` may carry a query and
    `user:password@` (see `Address`); the attribute `base_url` is without them, fit to be shown.

    Raises, while streaming: `EngineUnreachable`, `EngineStalled`, `ContextWindowExceeded` (before anything is generated),
    `EngineError` with the HTTP status, `StreamIncomplete`; `InvalidRequest` before anything is sent.
    """

    def __init__(
        self, base_url: str, api_key: str = "", model: str = "", *, dialect: Dialect | None = None, stall_s: float = 120.0
    ) -> None:
        if not stall_s > 0:
            raise InvalidRequest(f"stall_s is {stall_s}; allow the engine some seconds")
        self._address = Address.parse(base_url, api_key)
        self.base_url = self._address.base
        self.model = model
        self.dialect = dialect or Dialect()
        self._stall_s = stall_s
        self._warned: set[str] = set()
        # A connection pool belongs to the event loop it was made on, and a notebook may use several.
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.base_url!r}, model={self.model!r})"

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream the answer to `request`."""
        async with aclosing(self._stream(request)) as events:  # whoever holds the deadline stands between these two
            async for event in events:
                yield event

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        sent, started_unix = clock.now(), clock.unix_now()
        body = body_of(request, self.model, self.dialect.vllm)
        content, limit = encoded(body), limit_of(request)
        beside = self._address.host.endswith(_REASONING_BESIDE)
        answer = Answer(request, str(body.get("model", "")), sent, started_unix, limit, self._warn, beside)
        wire: Wire | None = None
        try:
            async with self._post("/chat/completions", content) as response:
                if response.status_code != 200:
                    raise await self._refusal(response, request, body)
                wire = Wire(response.headers.get("content-encoding", ""), limit)
                async for data in response.aiter_raw():
                    many = 0
                    for piece in wire.pieces(data):
                        if many:
                            await asyncio.sleep(0)  # a compressed piece may hold a thousand times its size
                        many += 1
                        at = clock.now()
                        for event in wire.events(piece):
                            if (chunk := answer.feed(event, at)) is not None:
                                yield chunk
                            if answer.finished:
                                break
                        if answer.finished:
                            break
                    if answer.finished:
                        break
                for event in wire.rest():
                    if (chunk := answer.feed(event, clock.now())) is not None:
                        yield chunk
                if not answer.whole:
                    raise self._not_whole(answer, wire, response)
        except Failed as failed:
            raise await self._failure(failed.fault, request, body) from None
        except LabError as error:
            raise self._without_key(error) from error.__cause__
        except httpx.ReadTimeout as error:
            if not answer.whole:
                raise EngineStalled(
                    f"{self.base_url} sent nothing for {self._stall_s:g} s after {answer.chunks} chunks; it is overloaded or "
                    "stuck. Look at its log, or raise stall_s"
                ) from error
        except httpx.HTTPError as error:
            if not answer.whole:
                raise self._broken(error, answer, wire) from error
        at = clock.now()
        if (chunk := answer.rest(at)) is not None:
            yield chunk
        yield answer.done(at)

    async def probe(self) -> Dialect:
        """Ask the endpoint what it serves; one that has no list of models, or an odd one, is known by its answers alone.

        Raises `EngineUnreachable`, or `EngineError` when it refuses (a wrong key).
        """
        try:
            listing = await self.get_json("/models")
        except EngineUnreachable:
            raise
        except EngineError as error:
            if error.status not in (400, 404, 405, 406, 410, 422, 501, 200):
                raise
            listing = None
        cards = _cards(listing)
        card = cards.get(self.model) or (next(iter(cards.values())) if cards else {})
        vllm = card.get("owned_by") == "vllm"
        version: Any = ""
        if vllm:
            try:
                answer = await self.get_json("/version", root=True)
                version = answer.get("version") if isinstance(answer, Mapping) else ""
            except EngineError:
                version = ""
        window = card.get("max_model_len")
        self.dialect = Dialect(
            vllm,
            window if type(window) is int and window > 0 else None,
            tuple(cards),
            version if isinstance(version, str) else "",
        )
        return self.dialect

    async def get_json(self, path: str, root: bool = False) -> Any:
        """GET `path` below the base URL, or below the server's root, as JSON. Raises `EngineError` where it is none."""
        text = await self.get_text(path, root)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            hint = self._address.hide(text[:80])
            raise EngineError(f"{self._address.base}{path} answered what is not JSON: {hint!r}", 200) from None

    async def get_text(self, path: str, root: bool = False) -> str:
        """GET `path` as text."""
        url = self._address.of(path, root)
        shown = url.partition("?")[0]
        try:
            async with self._client().stream("GET", url) as response:
                if response.status_code != 200:
                    fault, text = await self._read_error(response)
                    raise EngineError(
                        f"{shown} answered {response.status_code}: {text}",
                        response.status_code,
                        retry_after_s(response.headers, fault),
                    )
                return (await _body(response, MAX_BODY)).decode("utf-8", "replace")
        except httpx.TimeoutException as error:
            raise EngineStalled(f"{shown} sent nothing for {self._stall_s:g} s") from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except LabError as error:
            raise self._without_key(error) from error.__cause__

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def _post(self, path: str, content: bytes, root: bool = False) -> AsyncIterator[httpx.Response]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        async with self._client().stream("POST", self._address.of(path, root), content=content, headers=headers) as response:
            yield response

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            try:
                client = self._clients[loop] = httpx.AsyncClient(
                    headers={**self._address.headers, "Accept-Encoding": ENCODINGS},
                    timeout=httpx.Timeout(self._stall_s, connect=min(10.0, self._stall_s), pool=None),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                    # A proxy set for the internet must not catch loopback traffic.
                    trust_env=not self._address.loopback,
                )
            except (ValueError, ImportError, httpx.InvalidURL) as error:
                raise EngineUnreachable(
                    f"the proxy or certificate settings of this machine cannot be used ({type(error).__name__}); look at "
                    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
                ) from None
        return client

    async def _refusal(self, response: httpx.Response, request: Request, body: Mapping[str, Any]) -> LabError:
        fault, text = await self._read_error(response)
        status = response.status_code
        if response.has_redirect_location:
            text = f"it has moved to {self._address.hide(response.headers['location'][:200]).partition('?')[0]}; set that address"
        elif status == 404 and not self.base_url.endswith("/v1"):
            text += " (an OpenAI-compatible address usually ends in /v1)"
        return await self._in_words(
            text, status, retry_after_s(response.headers, fault), request, body, f"answered {status}"
        )

    async def _failure(self, fault: Any, request: Request, body: Mapping[str, Any]) -> LabError:
        text = self._address.hide(words(fault))
        return await self._in_words(
            text, status_of(fault), retry_after_s({}, fault), request, body, "failed while it should have answered"
        )

    async def _in_words(
        self, text: str, status: int | None, retry: float | None, request: Request, body: Mapping[str, Any], what: str
    ) -> LabError:
        found = too_long(text, status, self.dialect.context_window)
        if found is not None:
            window, asked = found
            prompt = await self._prompt_tokens(request)
            length = f"{prompt}" if prompt is not None else f"at least {asked}" if asked else "more"
            size = f"is {window} tokens" if window else "is less"
            return ContextWindowExceeded(
                f"the prompt has {length} tokens and asks for up to {limit_of(request)} more, and the context window of "
                f"{request.model or self.model} {size}; shorten the prompt or lower max_tokens"
            )
        return EngineError(f"{self.base_url} {what}: {text}{advice(text, body)}", status, retry)

    async def _read_error(self, response: httpx.Response) -> tuple[Any, str]:
        """An error's body, as JSON where it is some, and in words. As much of it as fits `MAX_ERROR` and ten seconds."""
        raw = bytearray()
        try:
            wire = Wire(response.headers.get("content-encoding", ""), 1)
            async with asyncio.timeout(min(_ERROR_S, self._stall_s)):
                async for data in response.aiter_raw():
                    for piece in wire.pieces(data):
                        raw += piece[:MAX_ERROR]
                        if len(raw) >= MAX_ERROR:
                            break
                    if len(raw) >= MAX_ERROR:
                        break
        except (TimeoutError, httpx.HTTPError, LabError):
            pass  # what has come of it must do
        text = raw[:MAX_ERROR].decode("utf-8-sig", "replace")
        try:
            fault = json.loads(text.removeprefix("data:"))
        except (ValueError, RecursionError):
            fault = None
            said = text.strip()[:500] or response.reason_phrase or "an error without words"
        else:
            said = words(fault_in(fault, True) if isinstance(fault, dict | list) else fault) or "an error without words"
        return fault, self._address.hide(said)

    async def _prompt_tokens(self, request: Request) -> int | None:
        """The exact prompt length where the endpoint can tell (vLLM's /tokenize): its refusal only gives a lower bound."""
        if not self.dialect.vllm:
            return None
        asked = {"model": request.model or self.model, "messages": [message_of(message) for message in request.messages]}
        try:
            async with self._post("/tokenize", encoded(asked), root=True) as response:
                answer = json.loads(await _body(response, MAX_BODY)) if response.status_code == 200 else None
        except (httpx.HTTPError, LabError, ValueError, RecursionError):
            return None
        count = answer.get("count") if isinstance(answer, Mapping) else None
        return count if type(count) is int else None

    def _not_whole(self, answer: Answer, wire: Wire, response: httpx.Response) -> StreamIncomplete:
        if answer.chunks:
            return StreamIncomplete(
                f"{self.base_url} ended the stream after {answer.chunks} chunks without [DONE] and without a finish_reason; "
                "the answer is not whole"
            )
        if not wire.received:
            return StreamIncomplete(f"{self.base_url} answered 200 and sent nothing")
        kind = response.headers.get("content-type", "no Content-Type")[:60]
        begin = answer.ignored or wire.beginning.decode("utf-8", "replace")[:120]
        return StreamIncomplete(
            f"{self.base_url} ended the stream after 0 chunks; what it sent ({kind}) is no chat completion: {begin!r}"
        )

    def _broken(self, error: httpx.HTTPError, answer: Answer, wire: Wire | None) -> LabError:
        if wire is None or not wire.received or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return self._unreachable(error)
        return StreamIncomplete(
            f"the connection to {self.base_url} broke after {answer.chunks} chunks ({self._words_of(error)}); "
            "the answer is not whole"
        )

    def _unreachable(self, error: Exception) -> EngineUnreachable:
        what = "what answers is no HTTP" if isinstance(error, httpx.ProtocolError) else "nothing answers"
        return EngineUnreachable(
            f"{what} at {self.base_url} ({self._words_of(error)}); start the engine, or correct LABKIT_BASE_URL"
        )

    def _words_of(self, error: Exception) -> str:
        return self._address.hide(str(error)[:200]) or type(error).__name__

    def _without_key(self, error: LabError) -> LabError:
        """`error` as it is, or with its words cleaned where the endpoint sent the key back in them."""
        error.args = tuple(self._address.hide(arg) if isinstance(arg, str) else arg for arg in error.args)
        return error

    def _warn(self, name: str) -> None:
        """Say once that the endpoint sent a field that is not read, at most for a hundred names."""
        if name not in self._warned and len(self._warned) < 100:
            self._warned.add(name)
            _log.warning("%s sends %r, which is not read", self.base_url, self._address.hide(name))


async def _body(response: httpx.Response, bound: int) -> bytes:
    """A whole body, decompressed. Raises `EngineError` for one above `bound` bytes."""
    wire, raw = Wire(response.headers.get("content-encoding", ""), 1), bytearray()
    async for data in response.aiter_raw():
        for piece in wire.pieces(data):
            raw += piece
            if len(raw) > bound:
                raise EngineError(f"{response.url.path} has more than {bound} bytes, which is the bound of such a body", 200)
    return bytes(raw)


def _cards(listing: Any) -> dict[str, Mapping[str, Any]]:
    """The models of a listing by id, whatever is odd about it; an entry may be the bare name."""
    entries = listing.get("data") or listing.get("models") if isinstance(listing, Mapping) else listing
    cards: dict[str, Mapping[str, Any]] = {}
    for entry in entries if isinstance(entries, list) else ():
        card = {"id": entry} if isinstance(entry, str) else entry
        if isinstance(card, Mapping) and isinstance(card.get("id"), str) and card["id"]:
            cards[card["id"]] = card
    return cards
