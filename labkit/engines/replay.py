"""Recordings: answers of a real engine with their timings and their provenance, and the handler that plays them again.

A recording is JSON lines: a header with the full provenance, then one exchange a line. Times are seconds since the request
was sent, so a replay keeps them on whatever clock it runs.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labkit.engines.errors import RecordingError
from labkit.engines.metrics import MetricsSnapshot, counted, counters_of
from labkit.engines.provenance import Provenance
from labkit.request import clock
from labkit.request.errors import EngineError
from labkit.request.handler import Handler, complete
from labkit.request.values import Chunk, Done, Event, Request, Timing, TokenLogprob, Usage

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded answer: chunks and end with times relative to the send, and what the engine itself counted for it."""

    chunks: tuple[Chunk, ...]
    done: Done
    counters: Mapping[str, float] | None = None


class Recording:
    """A loaded recording: a handler that answers the requests it holds, as fast as they were answered then.

    A request recorded several times is answered in turn. Raises `RecordingError` for a file without full provenance, and
    for a request that it does not hold.
    """

    def __init__(
        self, provenance: Provenance, exchanges: Iterable[tuple[str, Exchange]], context_window: int | None
    ) -> None:
        self.provenance = replace(provenance, kind="replay")
        self.context_window = context_window
        self._exchanges: dict[str, list[Exchange]] = {}
        for key, exchange in exchanges:
            self._exchanges.setdefault(key, []).append(exchange)
        self._turn = dict.fromkeys(self._exchanges, 0)
        self._counted: Counter[str] | None = Counter()

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Read `path`."""
        path = Path(path)
        try:
            # Not splitlines(): an answer may hold U+2028 or U+0085, which it takes for line ends and JSON does not.
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise RecordingError(f"no recording at {path}: {error.strerror}") from error
        try:
            header, *exchanges = (json.loads(line) for line in lines if line.strip())
        except ValueError as error:
            raise RecordingError(f"{path} is not a recording: {error}") from error
        if not isinstance(header, dict) or header.get("labkit_recording") != _FORMAT or "provenance" not in header:
            raise RecordingError(
                f"{path} has no provenance header; numbers of unknown origin are not shown, record them again"
            )
        try:
            provenance = Provenance.from_dict(header["provenance"])
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from error
        parsed = ((request_key(e["request"]), _read_exchange(e)) for e in exchanges)
        return cls(provenance, parsed, header.get("context_window"))

    @property
    def requests(self) -> tuple[str, ...]:
        """What it can answer, each request by the end of its last message."""
        return tuple(_summary(json.loads(key)) for key in self._exchanges)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Play the recorded answer."""
        key = request_key(_identity(request))
        exchanges = self._exchanges.get(key)
        if exchanges is None:
            known = "\n".join(f"  {summary}" for summary in self.requests[:20])
            more = f"\n  and {len(self.requests) - 20} more" if len(self.requests) > 20 else ""
            raise RecordingError(
                f"the recording does not hold this request: {_summary(_identity(request))}\n"
                f"A replay answers only what was recorded:\n{known}{more}\nConnect to a live engine for anything else."
            )
        exchange = exchanges[self._turn[key] % len(exchanges)]
        self._turn[key] += 1
        self._count(exchange)
        sent, started_unix = clock.now(), clock.unix_now()
        for chunk in exchange.chunks:
            await asyncio.sleep(max(0.0, sent + chunk.at - clock.now()))
            yield replace(chunk, at=clock.now())
        timing = exchange.done.timing
        if timing.done is not None:
            await asyncio.sleep(max(0.0, sent + timing.done - clock.now()))
        shifted = Timing(
            sent, _shift(timing.first_token, sent), _shift(timing.last_token, sent), _shift(timing.done, sent), started_unix
        )
        yield replace(exchange.done, timing=shifted)

    def metrics(self) -> MetricsSnapshot:
        """The engine's counters, over the answers played so far. Raises `EngineError` where one was recorded without."""
        if self._counted is None:
            raise EngineError("this recording does not hold what the engine counted; connect to a live one for metrics")
        return counted(self._counted)

    def _count(self, exchange: Exchange) -> None:
        if exchange.counters is None:
            self._counted = None
        elif self._counted is not None:
            self._counted.update(exchange.counters)


def recorded(
    inner: Handler,
    path: Path | str,
    provenance: Provenance,
    context_window: int | None = None,
    metrics: Callable[[], Awaitable[MetricsSnapshot]] | None = None,
) -> Handler:
    """A lever that writes every whole answer of `inner` to `path`; cancelled and failed ones are not answers.

    With `metrics`, what the engine counted for an answer is recorded too, of answers that had the engine to themselves.
    Raises `RecordingError` when `path` exists, since a recording has one provenance.
    """
    path = Path(path)
    Provenance.from_dict(provenance.as_dict())
    if provenance.kind in ("replay", "modelled"):
        raise RecordingError(f"a {provenance.kind} engine cannot be recorded: its numbers were not measured here")
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"labkit_recording": _FORMAT, "provenance": provenance.as_dict(), "context_window": context_window}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_line(header))
    except FileExistsError:
        raise RecordingError(f"{path} exists; delete it, or record to another file") from None

    begun, running = 0, 0

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        nonlocal begun, running
        chunks: list[Chunk] = []
        begun, running = begun + 1, running + 1
        number, alone = begun, running == 1
        try:
            before = await metrics() if metrics is not None else None
            async with aclosing(inner(request)) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        chunks.append(event)
                    else:
                        counters = None
                        if metrics is not None and before is not None and alone and begun == number:
                            counters = counters_of(await metrics() - before)
                        _append(path, _write_exchange(request, chunks, event, counters))
                    yield event
        finally:
            running -= 1

    return handle


async def record(
    handler: Handler,
    requests: Iterable[Request],
    path: Path | str,
    provenance: Provenance,
    *,
    context_window: int | None = None,
    progress: Any = None,
) -> int:
    """Run `requests` through `handler` one after another and write them to `path`. Returns how many.

    `path` appears only when all have been answered: a recording is whole or not there.
    """
    path = Path(path)
    if path.exists():
        raise RecordingError(f"{path} exists; delete it, or record to another file")
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    writer = recorded(handler, unfinished, provenance, context_window)
    count = 0
    try:
        for request in requests:
            await complete(writer, request)
            count += 1
            if progress is not None:
                progress(f"recorded {count}: {_summary(_identity(request))}")
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def request_key(identity: Mapping[str, Any]) -> str:
    """A canonical text of what the engine is asked; who asks and why does not change an answer."""
    return json.dumps(identity, sort_keys=True, ensure_ascii=False)


def _identity(request: Request) -> dict[str, Any]:
    return {
        "messages": [[message.role, message.content] for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop),
        "logprobs": request.logprobs,
        "response_format": None if request.response_format is None else dict(request.response_format),
        "extra": dict(request.extra),
    }


def _summary(identity: Mapping[str, Any]) -> str:
    role, content = identity["messages"][-1]
    text = content if len(content) <= 60 else "…" + content[-60:]
    return f"{role}: {text!r} (max_tokens={identity['max_tokens']}, temperature={identity['temperature']})"


def _write_exchange(
    request: Request, chunks: list[Chunk], done: Done, counters: Mapping[str, float] | None = None
) -> dict[str, Any]:
    timing = done.timing
    times = [None if t is None else t - timing.sent for t in (timing.first_token, timing.last_token, timing.done)]
    return {
        "request": _identity(request),
        "chunks": [
            {
                "at": chunk.at - timing.sent,
                "text": chunk.text,
                "tokens": chunk.tokens,
                **({"reasoning": chunk.reasoning} if chunk.reasoning else {}),
                **({"logprobs": [[lp.token, lp.logprob, lp.top] for lp in chunk.logprobs]} if chunk.logprobs else {}),
                **({"usage": asdict(chunk.usage)} if chunk.usage else {}),
            }
            for chunk in chunks
        ],
        "done": {
            "usage": asdict(done.usage),
            "times": times,
            "finish_reason": done.finish_reason,
            "model": done.model,
            "response_id": done.response_id,
        },
        **({} if counters is None else {"counters": dict(counters)}),
    }


def _read_exchange(exchange: Mapping[str, Any]) -> Exchange:
    chunks = tuple(
        Chunk(
            text=chunk["text"],
            at=chunk["at"],
            tokens=chunk["tokens"],
            reasoning=chunk.get("reasoning", ""),
            logprobs=tuple(
                TokenLogprob(token, logprob, tuple((t, p) for t, p in top))
                for token, logprob, top in chunk.get("logprobs", ())
            ),
            usage=Usage(**chunk["usage"]) if "usage" in chunk else None,
        )
        for chunk in exchange["chunks"]
    )
    done = exchange["done"]
    first, last, end = done["times"]
    timing = Timing(0.0, first, last, end)
    end_of_stream = Done(
        Usage(**done["usage"]), timing, done["finish_reason"], done["model"], response_id=done["response_id"]
    )
    return Exchange(chunks, end_of_stream, exchange.get("counters"))


def _shift(time: float | None, by: float) -> float | None:
    return None if time is None else by + time


def _append(path: Path, value: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(value))


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
