"""Making recordings: a lever that writes an engine's answers down, and a session that records a list of requests."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit.engines.errors import RecordingError
from labkit.engines.metrics import MetricsSnapshot, counters_of
from labkit.engines.provenance import Provenance
from labkit.engines.replay import FORMAT, summary
from labkit.request import (
    Chunk,
    Done,
    Event,
    Handler,
    Lever,
    Request,
    asked,
    canonical,
    chunk_to_json,
    complete,
    done_to_json,
)

_BESIDE = "recorded"


@dataclass(frozen=True)
class Recorded(Lever):
    """Writes every whole answer of an engine to `path`; cancelled and failed ones are not answers.

    With `metrics`, the engine's counters for an answer are recorded too, if the answer had the engine to itself. An answer
    that could not be written is passed on all the same, with the error among its faults.

    Making it raises `RecordingError` for a provenance that is incomplete, or of a replay or a model, since those were not
    measured here. Placing it begins the file, and raises `RecordingError` when `path` exists, since a recording has one
    provenance.
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
        """`inner`, with its answers written to `path`."""
        path, metrics = Path(self.path), self.metrics
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            "labkit_recording": FORMAT,
            "provenance": self.provenance.as_dict(),
            "context_window": self.context_window,
        }
        try:
            with path.open("xb") as file:
                file.write(_line(header))
        except FileExistsError:
            raise _taken(path) from None

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


def check_new(path: Path) -> None:
    """Raise `RecordingError` where `path` exists: nothing is recorded over another recording."""
    if path.exists():
        raise _taken(path)


def _taken(path: Path) -> RecordingError:
    return RecordingError(f"{path} exists; delete it, or record to another file")


async def record(
    handler: Handler,
    requests: Iterable[Request],
    path: Path | str,
    provenance: Provenance,
    *,
    context_window: int | None = None,
    progress: Any = None,
) -> int:
    """Run `requests` through `handler` one after another and write the answers to `path`. Returns how many.

    `path` appears only when all requests have been answered: a recording is whole or not there. `progress` is called with a
    line of text after each answer. `context_window` is in tokens. Raises `RecordingError` where `path` exists or an answer
    cannot be written, and whatever `handler` raises.
    """
    path = Path(path)
    check_new(path)
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
                progress(f"recorded {count}: {summary(asked(request))}")
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _write_exchange(
    request: Request, chunks: list[Chunk], done: Done, counters: Mapping[str, float] | None = None
) -> dict[str, Any]:
    what = asked(request)
    canonical(what)  # raises for a request that is not JSON: a replay could not find it
    sent = done.timing.sent
    # only the engine's own part: what levers in between wrote on the Done is not measured
    timing = replace(done.timing, started_unix=None)
    own = replace(done, timing=timing, route=(), cost=None, currency="USD", faults=())
    return {
        "request": what,
        "chunks": [chunk_to_json(chunk, since=sent) for chunk in chunks],
        "done": done_to_json(own, since=sent),
        **({} if counters is None else {"counters": dict(counters)}),
    }


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
