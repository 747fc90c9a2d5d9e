"""Recordings: answers of a real engine with their timings and their provenance, and the handler that plays them again.

A recording is JSON lines: a header with the full provenance, then one exchange a line. Times are seconds since the request
was sent, so a replay keeps them on either clock.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.engines.errors import RecordingError
from labkit.engines.metrics import MetricsSnapshot, counted
from labkit.engines.provenance import Provenance
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    Event,
    Message,
    Request,
    StreamIncomplete,
    Timing,
    asked,
    canonical,
    chunk_from_json,
    clock,
    done_from_json,
    held,
)

FORMAT = 1
"""The version of the file format; the file's header holds it as "labkit_recording"."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded answer: chunks and end, with times in seconds from the send, and the engine's own counters for it."""

    chunks: tuple[Chunk, ...]
    done: Done
    counters: Mapping[str, float] | None = None


class Recording:
    """A loaded recording: a handler that answers the requests it holds, as fast as they were answered then.

    A request that was recorded several times gets its recorded answers in turn. Raises `RecordingError` for a file without
    full provenance, and for a request that the recording does not hold.
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
        """Read `path`. Raises `RecordingError` where it cannot be read, has no full provenance, or is damaged."""
        path = Path(path)
        try:
            # Not splitlines(): it takes U+2028 and U+0085 for line ends, which may stand within an answer's JSON.
            lines = path.read_bytes().decode("utf-8").split("\n")
            header, *exchanges = (json.loads(line) for line in lines if line.strip())
        except OSError as error:
            raise RecordingError(f"no recording at {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"{path} is not a recording: {error}") from error
        if (
            not isinstance(header, dict)
            or header.get("labkit_recording") != FORMAT
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
        """The requests that it can answer, each shown by the end of its last message."""
        return tuple(summary(json.loads(key)) for key in self._exchanges)

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
                f"the recording does not hold this request: {summary(what)}\n"
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
        """The engine's counters over the answers played so far. Raises `EngineError` where one has no counters."""
        if self._counted is None:
            raise EngineError("this recording does not hold what the engine counted; connect to a live one for metrics")
        return counted(self._counted)

    def _count(self, exchange: Exchange) -> None:
        if exchange.counters is None:
            self._counted = None
        elif self._counted is not None:
            self._counted.update(exchange.counters)


def _whole(what: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded request in the present form of `asked`: an old file may lack a newer field, or have 0 for 0.0."""
    whole = asked(Request((Message("user", "any"),))) | dict(what)
    return whole | {"temperature": float(whole["temperature"]) + 0.0, "top_p": float(whole["top_p"])}


def summary(identity: Mapping[str, Any]) -> str:
    """A request in words: the end of its last message and its main settings."""
    role, content, *_ = identity["messages"][-1]
    text = content if len(content) <= 60 else "…" + content[-60:]
    return f"{role}: {text!r} (max_tokens={identity['max_tokens']}, temperature={identity['temperature']})"


def _read_exchange(exchange: Mapping[str, Any]) -> tuple[str, Exchange]:
    """The canonical text of one line's request, and its exchange."""
    counters = exchange.get("counters")
    read = Exchange(
        tuple(chunk_from_json(chunk) for chunk in exchange["chunks"]),
        done_from_json(exchange["done"]),
        None if counters is None else {str(name): float(value) for name, value in counters.items()},
    )
    what = _whole(exchange["request"])
    summary(what)
    return canonical(what), read


def _shift(time: float | None, by: float) -> float | None:
    return None if time is None else by + time
