"""Any OpenAI-compatible chat endpoint as a handler: httpx below, one pass over the bytes, nothing else in between.

Why not the `openai` client here: it builds a pydantic object for every streamed token, and 32 streams of a small model on
two cores then spend more on the client than a lever may cost (benchmarks/engines_overhead.py compares the two). The wire
format, server-sent events with one JSON object each, is small and stable.
"""

from __future__ import annotations

import asyncio
import json
import re
import weakref
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from labkit.request import clock
from labkit.request.errors import (
    ContextWindowExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    InvalidRequest,
    StreamIncomplete,
)
from labkit.request.values import Chunk, Done, Event, Request, Timing, TokenLogprob, Usage

# vLLM: "maximum context length is 2048 tokens. However, you requested 128 output tokens and your prompt contains at least
# 1921 input tokens"; OpenAI: "maximum context length is 128000 tokens. However, your messages resulted in 140005 tokens".
_WINDOW = re.compile(r"(?:maximum context length is |greater than max_model_len=)(\d+)")
_ASKED = re.compile(r"(?:contains|resulted in|requested|has)\D{0,40}?(\d+) (?:input |prompt )?tokens")
# vLLM on a prompt that fills the window to its last token: it cuts our max_tokens to what is left, and then refuses it.
_NO_ROOM = "max_tokens must be at least 1, got 0"


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
    only on an engine started with scheduling_policy="priority"; vLLM ignores it otherwise.

    Raises, while streaming: `EngineUnreachable`, `EngineStalled`, `ContextWindowExceeded` (before anything is generated),
    `EngineError` with the HTTP status, `StreamIncomplete`.
    """

    def __init__(
        self, base_url: str, api_key: str = "", model: str = "", *, dialect: Dialect | None = None, stall_s: float = 120.0
    ) -> None:
        if not re.match(r"https?://[^/]", base_url):
            raise InvalidRequest(f"{base_url!r} is no endpoint address; it should look like http://127.0.0.1:8000/v1")
        if not stall_s > 0:
            raise InvalidRequest(f"stall_s is {stall_s}; allow the engine some seconds")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.dialect = dialect or Dialect()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._stall_s = stall_s
        # A connection pool belongs to the event loop it was made on, and a notebook may use several.
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = weakref.WeakKeyDictionary()

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream the answer to `request`."""
        sent, started_unix = clock.now(), clock.unix_now()
        reader = _StreamReader(request, self._body(request)["model"], sent, started_unix)
        received = 0
        try:
            async with self._client().stream("POST", "/chat/completions", json=self._body(request)) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise await self._refusal(response, request)
                rest = b""
                async for data in response.aiter_raw():
                    received += len(data)
                    *lines, rest = (rest + data).split(b"\n")
                    at = clock.now()
                    for line in lines:
                        if line.startswith(b"data:"):
                            for chunk in reader.feed(line[5:].strip(), at):
                                yield chunk
                            if reader.finished:
                                yield reader.done(clock.now())
                                return
        except httpx.ReadTimeout as error:
            raise EngineStalled(
                f"{self.base_url} sent nothing for {self._stall_s:g} s after {reader.chunks} chunks; it is overloaded or "
                "stuck. Look at its log, or raise stall_s"
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            if not received:
                raise self._unreachable(error) from error
            raise StreamIncomplete(
                f"the connection to {self.base_url} broke after {reader.chunks} chunks ({error or type(error).__name__}); "
                "the answer is not whole"
            ) from error
        raise StreamIncomplete(
            f"{self.base_url} ended the stream after {reader.chunks} chunks without [DONE]; the answer is not whole"
        )

    async def probe(self) -> Dialect:
        """Ask the endpoint what it serves. Raises `EngineUnreachable`, or `EngineError` when it refuses (a wrong key)."""
        listing = await self.get_json("/models")
        models = tuple(model["id"] for model in listing.get("data", ()))
        cards = {model["id"]: model for model in listing.get("data", ())}
        card = cards.get(self.model) or (next(iter(cards.values())) if cards else {})
        vllm = card.get("owned_by") == "vllm"
        version = (await self.get_json("/version", root=True)).get("version", "") if vllm else ""
        self.dialect = Dialect(vllm, card.get("max_model_len"), models, version)
        return self.dialect

    async def get_json(self, path: str, root: bool = False) -> Any:
        """GET `path` below the base URL, or below the server's root, as JSON."""
        return (await self._get(path, root)).json()

    async def get_text(self, path: str, root: bool = False) -> str:
        """GET `path` as text."""
        return (await self._get(path, root)).text

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _get(self, path: str, root: bool) -> httpx.Response:
        url = self.base_url.removesuffix("/v1") + path if root else self.base_url + path
        try:
            response = await self._client().get(url)
        except httpx.TimeoutException as error:
            raise EngineStalled(f"{url} sent nothing for {self._stall_s:g} s") from error
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code != 200:
            raise EngineError(f"{url} answered {response.status_code}: {_message(response)}", response.status_code)
        return response

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = httpx.AsyncClient(
                base_url=self.base_url,
                headers=self._headers,
                timeout=httpx.Timeout(self._stall_s, connect=10.0, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
                # A proxy set for the internet must not catch loopback traffic.
                trust_env="//127.0.0.1" not in self.base_url and "//localhost" not in self.base_url,
            )
        return client

    def _body(self, request: Request) -> dict[str, Any]:
        model = request.model or self.model
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.dialect.vllm:
            body["stream_options"]["continuous_usage_stats"] = True
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logprobs is not None:
            body["logprobs"] = True
            body["top_logprobs"] = request.logprobs
        if request.response_format is not None:
            body["response_format"] = dict(request.response_format)
        if request.priority:
            body["priority"] = request.priority
        body.update(request.extra)
        return body

    async def _refusal(self, response: httpx.Response, request: Request) -> Exception:
        text = _message(response)
        found = _WINDOW.search(text)
        window = found[1] if found else self.dialect.context_window if _NO_ROOM in text else None
        if response.status_code == 400 and window:
            prompt = await self._prompt_tokens(request)
            asked = _ASKED.findall(text)
            length = f"{prompt}" if prompt is not None else f"at least {asked[-1]}" if asked else "more"
            return ContextWindowExceeded(
                f"the prompt has {length} tokens and asks for up to {request.max_tokens} more, and the context window of "
                f"{request.model or self.model} is {window} tokens; shorten the prompt or lower max_tokens"
            )
        return EngineError(f"{self.base_url} answered {response.status_code}: {text}", response.status_code)

    async def _prompt_tokens(self, request: Request) -> int | None:
        """The exact prompt length where the endpoint can tell (vLLM's /tokenize): its refusal only gives a lower bound."""
        if not self.dialect.vllm:
            return None
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        url = self.base_url.removesuffix("/v1") + "/tokenize"
        response = await self._client().post(url, json={"model": request.model or self.model, "messages": messages})
        return int(response.json()["count"]) if response.status_code == 200 else None

    def _unreachable(self, error: Exception) -> EngineUnreachable:
        return EngineUnreachable(
            f"nothing answers at {self.base_url} ({error or type(error).__name__}); start the engine, or correct "
            "LABKIT_BASE_URL"
        )


class _StreamReader:
    """Turns the stream's JSON objects into chunks and keeps what `Done` needs."""

    def __init__(self, request: Request, model: str, sent: float, started_unix: float) -> None:
        self.chunks = 0
        self.finished = False
        self._model = model
        self._wants_logprobs = request.logprobs is not None
        self._sent = sent
        self._started_unix = started_unix
        self._first: float | None = None
        self._last: float | None = None
        self._usage: Usage | None = None
        self._finish_reason = ""
        self._id = ""

    def feed(self, data: bytes, at: float) -> list[Chunk]:
        """The chunks in one event; none for the opening role and the closing usage."""
        if data == b"[DONE]":
            self.finished = True
            return []
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StreamIncomplete(f"the engine sent what is not JSON after {self.chunks} chunks: {data[:80]!r}") from error
        if "error" in event:
            fault = event["error"]
            raise EngineError(
                f"the engine failed while streaming: {fault.get('message', fault)}", _status(fault.get("code"))
            )
        self._id = event.get("id") or self._id
        self._model = event.get("model") or self._model
        before = self._usage.output_tokens if self._usage else 0
        usage = event.get("usage")
        if usage:
            self._usage = parse_usage(usage)
        choices = event.get("choices")
        if not choices:
            return []
        choice = choices[0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
        logprobs = _logprobs(choice) if self._wants_logprobs else ()
        running = self._usage if usage else None
        tokens = running.output_tokens - before if running else len(logprobs) or 1
        if not text and not reasoning and not logprobs and not (running and tokens):
            return []
        if text or reasoning:
            if self._first is None:
                self._first = at
            self._last = at
        self.chunks += 1
        return [Chunk(text, at, tokens, reasoning, logprobs, running)]

    def done(self, at: float) -> Done:
        """The end of the stream. Raises `EngineError` when the endpoint counted no tokens: a cost would be invented."""
        if self._usage is None:
            raise EngineError("the endpoint reported no token usage (stream_options.include_usage); its cost is unknowable")
        timing = Timing(self._sent, self._first, self._last, at, self._started_unix)
        return Done(self._usage, timing, self._finish_reason or "stop", self._model, response_id=self._id)


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """An OpenAI usage object as `Usage`; a part that the endpoint leaves out is 0, as the OpenAI API defines it."""
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )


def _logprobs(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple((top["token"], top["logprob"]) for top in entry.get("top_logprobs") or ()),
        )
        for entry in content
    )


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:500]
    if isinstance(body, dict):
        fault = body.get("error", body)
        return str(fault.get("message", fault) if isinstance(fault, dict) else fault)
    return str(body)[:500]


def _status(code: Any) -> int | None:
    return code if isinstance(code, int) else None
