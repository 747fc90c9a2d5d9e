"""Recordings: answers of a real engine with their timings and their provenance, and the handler that plays them again.

A recording is JSON lines: a header with the full provenance, then one exchange a line. Times are seconds since the request
was sent, so a replay keeps them on whatever clock it runs.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.engines.errors import RecordingError
from labkit.engines.metrics import MetricsSnapshot, counted, counters_of
from labkit.engines.provenance import Provenance
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    Event,
    Handler,
    Lever,
    Message,
    Request,
    StreamIncomplete,
    Timing,
    asked,
    canonical,
    chunk_from_json,
    chunk_to_json,
    clock,
    complete,
    done_from_json,
    done_to_json,
    held,
)

_FORMAT = 1
_BESIDE = "recorded"


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
            lines = path.read_bytes().decode("utf-8").split("\n")
            header, *exchanges = (json.loads(line) for line in lines if line.strip())
        except OSError as error:
            raise RecordingError(f"no recording at {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"{path} is not a recording: {error}") from error
        if (
            not isinstance(header, dict)
            or header.get("labkit_recording") != _FORMAT
            or not isinstance(header.get("provenance"), dict)
        ):
            raise RecordingError(
                f"{path} has no provenance header; numbers of unknown origin are not shown, record them again"
            )
        try:
            provenance = Provenance.from_dict(header["provenance"])
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from error
        parsed = []
        for number, exchange in enumerate(exchanges, 1):
            try:
                parsed.append(_read_exchange(exchange))
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError, StreamIncomplete) as error:
                raise RecordingError(f"exchange {number} of {path} is damaged: {error!r:.200}; record it again") from error
        return cls(provenance, parsed, header.get("context_window"))

    @property
    def requests(self) -> tuple[str, ...]:
        """What it can answer, each request by the end of its last message."""
        return tuple(_summary(json.loads(key)) for key in self._exchanges)

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Play the recorded answer."""
        return held(self._play, request)

    async def _play(self, request: Request) -> AsyncGenerator[Event, None]:
        what = asked(request)
        key = canonical(what)
        exchanges = self._exchanges.get(key)
        if exchanges is None:
            known = "\n".join(f"  {summary}" for summary in self.requests[:20])
            more = f"\n  and {len(self.requests) - 20} more" if len(self.requests) > 20 else ""
            raise RecordingError(
                f"the recording does not hold this request: {_summary(what)}\n"
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


@dataclass(frozen=True)
class Recorded(Lever):
    """Writes every whole answer of an engine to `path`; cancelled and failed ones are not answers.

    With `metrics`, what the engine counted for an answer is recorded too, of answers that had the engine to themselves. An
    answer that could not be written goes on all the same, and tells so among its faults.

    Placing it begins the file. Raises `RecordingError` when `path` exists, since a recording has one provenance, and when
    there is nothing measured to record.
    """

    path: Path | str
    provenance: Provenance
    context_window: int | None = None
    metrics: Callable[[], Awaitable[MetricsSnapshot]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        Provenance.from_dict(self.provenance.as_dict())
        if self.provenance.kind in ("replay", "modelled"):
            raise RecordingError(f"a {self.provenance.kind} engine cannot be recorded: its numbers were not measured here")

    def over(self, inner: Handler) -> Handler:
        """`inner`, its answers written down."""
        path, metrics = Path(self.path), self.metrics
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            "labkit_recording": _FORMAT,
            "provenance": self.provenance.as_dict(),
            "context_window": self.context_window,
        }
        try:
            with path.open("xb") as file:
                file.write(_line(header))
        except FileExistsError:
            raise RecordingError(f"{path} exists; delete it, or record to another file") from None

        begun, running = 0, 0

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            nonlocal begun, running
            chunks: list[Chunk] = []
            faults: list[Exception] = []
            begun, running = begun + 1, running + 1
            number, alone = begun, running == 1
            try:
                before = None
                if metrics is not None:
                    try:
                        before = await metrics()
                    except Exception as error:  # noqa: BLE001 - the answer is wanted more than its counters
                        faults.append(error)
                async with aclosing(inner(request)) as events:
                    async for event in events:
                        if isinstance(event, Chunk):
                            chunks.append(event)
                        else:
                            counters = None
                            try:
                                if metrics is not None and before is not None and alone and begun == number:
                                    counters = counters_of(await metrics() - before)
                            except Exception as error:  # noqa: BLE001 - whatever it raises, the answer was paid for
                                faults.append(error)
                            try:
                                _append(path, _write_exchange(request, chunks, event, counters))
                            except Exception as error:  # noqa: BLE001 - the same
                                faults.append(error)
                            for fault in faults:
                                event = event.beside(_BESIDE, fault)
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
    writer = Recorded(unfinished, provenance, context_window)(handler)
    count = 0
    try:
        for request in requests:
            answer = await complete(writer, request)
            for fault in answer.done.faults:
                if fault.where == _BESIDE:
                    raise RecordingError(f"an answer could not be written to {unfinished}: {fault.error}") from fault.error
            count += 1
            if progress is not None:
                progress(f"recorded {count}: {_summary(asked(request))}")
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _whole(what: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked as `asked` says it today: a file may be older than one of its fields, or have 0 for 0.0."""
    whole = asked(Request((Message("user", "any"),))) | dict(what)
    return whole | {"temperature": float(whole["temperature"]) + 0.0, "top_p": float(whole["top_p"])}


def _summary(identity: Mapping[str, Any]) -> str:
    role, content, *_ = identity["messages"][-1]
    text = content if len(content) <= 60 else "…" + content[-60:]
    return f"{role}: {text!r} (max_tokens={identity['max_tokens']}, temperature={identity['temperature']})"


def _write_exchange(
    request: Request, chunks: list[Chunk], done: Done, counters: Mapping[str, float] | None = None
) -> dict[str, Any]:
    what = asked(request)
    canonical(what)  # raises for what is not JSON, which could not be told apart from others when it is played
    sent = done.timing.sent
    # of the engine's alone: what levers between wrote on the Done is no measurement
    own = Done(
        done.usage,
        replace(done.timing, started_unix=None),
        done.finish_reason,
        done.model,
        response_id=done.response_id,
    )
    return {
        "request": what,
        "chunks": [chunk_to_json(chunk, since=sent) for chunk in chunks],
        "done": done_to_json(own, since=sent),
        **({} if counters is None else {"counters": dict(counters)}),
    }


def _read_exchange(exchange: Mapping[str, Any]) -> tuple[str, Exchange]:
    """The exchange of one line, and the canonical text of what was asked."""
    counters = exchange.get("counters")
    read = Exchange(
        tuple(chunk_from_json(chunk) for chunk in exchange["chunks"]),
        done_from_json(exchange["done"]),
        None if counters is None else {str(name): float(value) for name, value in counters.items()},
    )
    what = _whole(exchange["request"])
    _summary(what)
    return canonical(what), read


def _shift(time: float | None, by: float) -> float | None:
    return None if time is None else by + time


def _append(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as the next line, or nothing of it."""
    line = _line(value)
    with path.open("ab") as file:
        end = file.seek(0, os.SEEK_END)
        try:
            file.write(line)
            file.flush()
        except OSError:
            file.truncate(end)
            raise


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
