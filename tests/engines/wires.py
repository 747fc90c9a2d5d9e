"""An endpoint made of bytes: the engine reads a body that a test wrote, through its whole client, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

import httpx
import psutil

from labkit.engines import OpenAIEngine
from labkit.request import Completion, Request, complete

THIS = psutil.Process()
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


def sse(*events: object, done: bool = True) -> bytes:
    body = b"".join(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events)
    return body + (b"data: [DONE]\n\n" if done else b"")


def delta(content: object = None, finish: object = None, index: int = 0, **more: object) -> dict:
    piece = dict(more) if content is None else {"content": content, **more}
    return {"id": "r1", "model": "m", "choices": [{"index": index, "delta": piece, "finish_reason": finish}]}


def usage(**fields: object) -> dict:
    return {"id": "r1", "model": "m", "choices": [], "usage": fields}


class Body(httpx.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces
        self.peak = 0  # bytes of this process's memory, the most between two pieces

    async def __aiter__(self):
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece
            self.peak = max(self.peak, THIS.memory_info().rss)


class Endpoint:
    """An engine whose every request is answered with `body` (bytes, or pieces of them); `asked` holds what it was sent."""

    def __init__(
        self,
        body: bytes | Iterable[bytes],
        status: int = 200,
        headers: Mapping[str, str] = SSE,
        url: str = "http://x.test/v1",
        key: str = "",
        **options: object,
    ) -> None:
        self.asked: list[httpx.Request] = []
        self.body = Body([body] if isinstance(body, bytes) else body)

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            return httpx.Response(status, headers=dict(headers), stream=self.body)

        self.engine = OpenAIEngine(url, key, "m", **options)
        client = httpx.AsyncClient(
            transport=httpx.MockTransport(answer), headers=dict(self.engine._http.address.headers), timeout=5
        )
        self.engine._http._client = lambda: client

    def ask(self, request: Request | None = None) -> Completion:
        return asyncio.run(complete(self.engine, request or Request("hi")))

    @property
    def sent(self) -> list[dict]:
        return [json.loads(request.content) for request in self.asked]


def ask(body: bytes | Iterable[bytes], request: Request | None = None, **options: object) -> Completion:
    return Endpoint(body, **options).ask(request)
