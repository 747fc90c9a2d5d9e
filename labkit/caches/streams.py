"""Answers as streams: how a cache stores one as bytes and replays it, and what the `Done` of a repeated answer says."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any, TypeVar

from labkit.request import (
    Chunk,
    Completion,
    Done,
    Event,
    Timing,
    Usage,
    chunk_from_json,
    chunk_to_json,
    clock,
    done_from_json,
    done_to_json,
    hops,
)

T = TypeVar("T")
STORED_REASONS = frozenset({"stop", "length", "tool_calls"})
LAYERS = {
    hops.RESPONSE_CACHE: "response",
    hops.SEMANTIC_CACHE: "semantic",
    hops.SINGLE_FLIGHT: "single flight",
    hops.IDEMPOTENT: "idempotency key",
}
"""The layer's name, as in tables, for the kind of its hop on a route."""


class Aside:
    """Collects the errors of a lever for one answer.

    The lever steps aside, the answer goes on without it, and the answer's `Done` lists the errors.
    """

    __slots__ = ("errors", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self.errors: list[Exception] = []

    def attempt(self, work: Callable[[], T]) -> T | None:
        """The result of `work`; None if it fails, and then its error is kept."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever fails here, the answer must not fail
            self.errors.append(error)
            return None

    def told(self, done: Done) -> Done:
        """`done` with all errors so far added as faults."""
        for error in self.errors:
            done = done.beside(self.where, error)
        return done

    async def beside(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """`events` with all errors added to their `Done`."""
        async with aclosing(events) as stream:
            async for event in stream:
                yield self.told(event) if isinstance(event, Done) else event


def layer_of(route: tuple[str, ...]) -> str | None:
    """The layer that gave an answer with this route; None if an engine gave it."""
    return next((LAYERS[kind] for kind in hops.kinds(route) if kind in LAYERS), None)


def may_be_kept(done: Done) -> bool:
    """Whether an answer may be stored: it ended by itself or at its limit, and it was computed just now.

    An answer that came from another cache belongs to that cache. Stored again here, it would get a new creation time, and
    would outlive the facts and the lifetime it was made under. One that a budget cut would be whole for another caller.
    """
    if not isinstance(done.finish_reason, str) or done.finish_reason not in STORED_REASONS:
        return False
    return not {hops.RESPONSE_CACHE, hops.SEMANTIC_CACHE, hops.IDEMPOTENT, hops.BUDGET} & set(hops.kinds(done.route))


def given_again(done: Done) -> Done:
    """`done` for a caller who gets the answer again: no usage, cost 0, and an id that names the original answer."""
    told = {f.name: f.default for f in fields(Done) if f.name in ("usage_note", "faults", "booked")}
    return replace(done, usage=Usage(), cost=Decimal(0), response_id=_original(done), **told)  # type: ignore[arg-type]


def _original(done: Done) -> str:
    """The response id plus the time at which the answer ended, `id@seconds since 1970`; some servers reuse their ids.

    The end is used because levers move the beginning to the moment when their caller began to wait. `savings` reads this id.
    """
    timing = done.timing
    if set(hops.REPEATED) & set(hops.kinds(done.route)) or timing.started_unix is None or timing.e2e is None:
        return done.response_id
    end = timing.started_unix + timing.e2e
    return f"{done.response_id}@{end:017.6f}" if math.isfinite(end) else done.response_id


def encode(answer: Completion) -> bytes | None:
    """A whole answer as bytes, without its times; None if it holds something that could not be restored exactly."""
    done = replace(given_again(answer.done), timing=Timing(0.0), route=())
    chunks = [replace(chunk, at=0.0, usage=None) for chunk in answer.chunks]
    try:
        data = {"chunks": [chunk_to_json(chunk) for chunk in chunks], "done": done_to_json(done)}
        kept = json.dumps(data, separators=(",", ":"), allow_nan=False).encode("ascii")
        return kept if decode(kept) == (chunks, done) else None
    except Exception:  # noqa: BLE001 - an engine may put anything anywhere; unknown things are not kept
        return None


def decode(kept: bytes) -> tuple[list[Chunk], Done]:
    """The chunks and the `Done` that `encode` stored.

    Raises `StreamIncomplete`, `ValueError`, `KeyError` or `TypeError` for bytes that `encode` did not write.
    """
    data: dict[str, Any] = json.loads(kept)
    return [chunk_from_json(chunk) for chunk in data["chunks"]], done_from_json(data["done"])


def text_of(kept: bytes) -> str:
    """The words of a stored answer, without its reasoning."""
    return "".join(chunk["text"] for chunk in json.loads(kept)["chunks"])


def replay(kept: bytes, hop: str, sent: float, started_unix: float) -> list[Event]:
    """The chunks of a stored answer, all at the present time, without their pauses, and its `Done`.

    `sent` is in seconds of `clock.now()`, `started_unix` in seconds since 1970. Raises what `decode` raises.
    """
    now = clock.now()
    chunks, done = decode(kept)
    # The running total is 0, so that a replay that is cut short costs nothing either.
    events: list[Event] = [replace(chunk, at=now, usage=Usage()) for chunk in chunks]
    said = now if any(chunk.has_content for chunk in chunks) else None
    return [*events, replace(done, timing=Timing(sent, said, said, now, started_unix)).via(hop)]


async def played(events: list[Event]) -> AsyncGenerator[Event, None]:
    """`events` as a stream."""
    for event in events:
        yield event
