"""Any OpenAI-compatible chat endpoint as a handler: httpx below, one pass over the bytes, nothing else in between.

It does not use the `openai` client, which builds a pydantic object for every streamed token: 32 streams of a small model on
two cores then spend more time in the client than a lever may cost (benchmarks/engines_overhead.py compares the two). Each
part has its own file: `address` (address and key), `connection` (HTTP), `body` (the request's JSON), `wire` (bytes to
events), `answer` (events to chunks), `content`, `tools`, `endings`, `usage`, and `faults` (the endpoint's errors).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.engines.address import Address
from labkit.engines.answer import Answer, Failed
from labkit.engines.body import advice, body_of, encoded, limit_of, message_of
from labkit.engines.connection import Connection, read_all
from labkit.engines.faults import named, retry_after_s, status_of, too_long, words
from labkit.engines.wire import Wire
from labkit.request import (
    ContextWindowExceeded,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    Event,
    LabError,
    Request,
    StreamIncomplete,
    clock,
    held,
)

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("labkit.engines")
# These domains count reasoning beside the output, as genai-prices reads their usage.
_REASONING_BESIDE = (".x.ai", ".perplexity.ai")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an endpoint understands beyond the common ground; `probe` asks, so that none is sent a field that it refuses."""

    vllm: bool = False
    context_window: int | None = None
    models: tuple[str, ...] = ()
    version: str = ""


class OpenAIEngine:
    """A handler over `base_url` (".../v1"): streams, cancels, and names what went wrong.

    `model` is used where a request names none. `stall_s` is how long, in seconds, the endpoint may send nothing before
    `EngineStalled`. Closing the stream closes the connection, and vLLM then aborts the request. A request's priority counts
    only on an engine started with scheduling_policy="priority"; vLLM ignores it otherwise. `base_url` may carry a query and
    `user:password@` (see `Address`); the attribute `base_url` has neither and may be shown.

    Raises `InvalidValue` for an address, a key or a `stall_s` that cannot work. A stream raises `InvalidRequest` before
    anything is sent, `ContextWindowExceeded` before anything is generated, and `EngineUnreachable`, `EngineStalled`,
    `EngineError` (with the HTTP status), `StreamIncomplete` or `DeadlineExceeded` after that.
    """

    def __init__(
        self, base_url: str, api_key: str = "", model: str = "", *, dialect: Dialect | None = None, stall_s: float = 120.0
    ) -> None:
        self._address = Address.parse(base_url, api_key)
        self._http = Connection(self._address, stall_s)
        self.base_url = self._address.base
        self.model = model
        self.dialect = dialect or Dialect()
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.base_url!r}, model={self.model!r})"

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream the answer to `request`."""
        return held(self._stream, request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        import httpx

        sent, started_unix = clock.now(), clock.unix_now()
        body = body_of(request, self.model, self.dialect.vllm)
        content, limit = encoded(body), limit_of(request)
        beside = f".{self._address.host}".endswith(_REASONING_BESIDE)  # the domain itself or a subdomain
        answer = Answer(request, str(body.get("model", "")), sent, started_unix, limit, self._warn, beside)
        wire: Wire | None = None
        try:
            async with self._http.post("/chat/completions", content) as response:
                if response.status_code != 200:
                    raise await self._refusal(response, request, body)
                wire = Wire(response.headers.get("content-encoding", ""), limit)
                async for data in response.aiter_raw():
                    for number, piece in enumerate(wire.pieces(data)):
                        if number:
                            await asyncio.sleep(0)  # data may unpack to a thousand times its size: let others run
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
            raise self._http.without_key(error) from error.__cause__
        except httpx.ReadTimeout as error:
            if not answer.whole:
                raise EngineStalled(
                    f"{self.base_url} sent nothing for {self._http.stall_s:g} s after {answer.chunks} chunks; it is "
                    "overloaded or stuck. Look at its log, or raise stall_s"
                ) from error
        except httpx.HTTPError as error:
            if not answer.whole:
                raise self._broken(error, answer, wire) from error
        at = clock.now()
        if (chunk := answer.rest(at)) is not None:
            yield chunk
        yield answer.done(at)

    async def probe(self) -> Dialect:
        """Ask the endpoint what it serves, and keep that as `dialect`. Without a readable list of models it is empty.

        Raises `EngineUnreachable`, `EngineStalled`, or `EngineError` when the endpoint refuses (a wrong key) or fails.
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
        """GET `path` below the base URL, or below the server's root, as JSON. Raises `EngineError` where it is not JSON."""
        text = await self._http.get(path, root)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            hint = self._address.hide(text[:80])
            raise EngineError(f"{self._address.base}{path} answered what is not JSON: {hint!r}", 200) from None

    async def get_text(self, path: str, root: bool = False) -> str:
        """GET `path` as text. Raises `EngineError`, `EngineStalled`, `EngineUnreachable`."""
        return await self._http.get(path, root)

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self._http.aclose()

    async def _refusal(self, response: httpx.Response, request: Request, body: Mapping[str, Any]) -> LabError:
        fault, text = await self._http.read_error(response)
        status = response.status_code
        if response.has_redirect_location:
            place = self._address.hide(response.headers["location"][:200]).partition("?")[0]
            text = f"it has moved to {place}; set that address"
        elif status == 404 and not self.base_url.endswith("/v1"):
            text += " (an OpenAI-compatible address usually ends in /v1)"
        retry = retry_after_s(response.headers, fault)
        return await self._in_words(fault, f"answered {status}: {text}", status, retry, request, body)

    async def _failure(self, fault: Any, request: Request, body: Mapping[str, Any]) -> LabError:
        text = f"failed within its answer: {self._address.hide(words(fault))}"
        return await self._in_words(fault, text, status_of(fault), retry_after_s({}, fault), request, body)

    async def _in_words(
        self,
        fault: Any,
        text: str,
        status: int | None,
        retry: float | None,
        request: Request,
        body: Mapping[str, Any],
    ) -> LabError:
        found = too_long(f"{text} {named(fault)}", status, self.dialect.context_window)
        if found is not None:
            window, asked = found
            prompt = await self._prompt_tokens(request)
            length = f"{prompt}" if prompt is not None else f"at least {asked}" if asked else "more"
            size = f"is {window} tokens" if window else "is less"
            return ContextWindowExceeded(
                f"the prompt has {length} tokens and asks for up to {limit_of(request)} more, and the context window of "
                f"{request.model or self.model} {size}; shorten the prompt or lower max_tokens"
            )
        return EngineError(f"{self.base_url} {text}{advice(text, body)}", status, retry)

    async def _prompt_tokens(self, request: Request) -> int | None:
        """The prompt's exact length in tokens from vLLM's /tokenize, else None: the refusal gives only a lower bound."""
        import httpx

        if not self.dialect.vllm:
            return None
        asked = {"model": request.model or self.model, "messages": [message_of(message) for message in request.messages]}
        try:
            async with self._http.post("/tokenize", encoded(asked), root=True) as response:
                answer = json.loads(await read_all(response)) if response.status_code == 200 else None
        except (httpx.HTTPError, LabError, ValueError, RecursionError):
            return None
        count = answer.get("count") if isinstance(answer, Mapping) else None
        return count if type(count) is int else None

    def _not_whole(self, answer: Answer, wire: Wire, response: httpx.Response) -> StreamIncomplete:
        if answer.chunks:
            odd = f" (amid them {self._address.hide(answer.ignored)!r})" if answer.ignored else ""
            return StreamIncomplete(
                f"{self.base_url} ended the stream after {answer.chunks} chunks{odd} without [DONE] and without a "
                "finish_reason; the answer is not whole"
            )
        if not wire.received:
            return StreamIncomplete(f"{self.base_url} answered 200 and sent nothing")
        kind = response.headers.get("content-type", "no Content-Type")[:60]
        begin = answer.ignored or wire.beginning.decode("utf-8", "replace")[:120]
        return StreamIncomplete(
            f"{self.base_url} ended the stream after 0 chunks; what it sent ({kind}) is no chat completion: {begin!r}"
        )

    def _broken(self, error: httpx.HTTPError, answer: Answer, wire: Wire | None) -> LabError:
        import httpx

        if wire is None or not wire.received or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return self._http.unreachable(error)
        return StreamIncomplete(
            f"the connection to {self.base_url} broke after {answer.chunks} chunks ({self._http.words_of(error)}); "
            "the answer is not whole"
        )

    def _warn(self, name: str) -> None:
        """Log, once for each of at most a hundred names, that the endpoint sent a field that is not read."""
        if name not in self._warned and len(self._warned) < 100:
            self._warned.add(name)
            _log.warning("%s sends %r, which is not read", self.base_url, self._address.hide(name))


def _cards(listing: Any) -> dict[str, Mapping[str, Any]]:
    """The models of a listing by id. An entry may be the bare name; entries that cannot be read are left out."""
    entries = listing.get("data") or listing.get("models") if isinstance(listing, Mapping) else listing
    cards: dict[str, Mapping[str, Any]] = {}
    for entry in entries if isinstance(entries, list) else ():
        card = {"id": entry} if isinstance(entry, str) else entry
        if isinstance(card, Mapping) and isinstance(card.get("id"), str) and card["id"]:
            cards[card["id"]] = card
    return cards
