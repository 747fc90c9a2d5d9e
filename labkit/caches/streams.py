"""Answers as streams: how a cache keeps one as bytes and plays it again, and what a repeated answer's `Done` says."""

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
LAYERS = {hops.RESPONSE_CACHE: "response", hops.SEMANTIC_CACHE: "semantic", hops.SINGLE_FLIGHT: "single flight"}
"""The layers by their hop's kind on a route, as tables name them."""


class Aside:
    """What a lever could not do for one answer: it steps aside, and tells on the answer's `Done`."""

    __slots__ = ("errors", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self.errors: list[Exception] = []

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None where it fails."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever fails here, the answer does not
            self.errors.append(error)
            return None

    def told(self, done: Done) -> Done:
        """`done` with all that failed."""
        for error in self.errors:
            done = done.beside(self.where, error)
        return done

    async def beside(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """`events` with all that failed told at their end."""
        async with aclosing(events) as stream:
            async for event in stream:
                yield self.told(event) if isinstance(event, Done) else event


def layer_of(route: tuple[str, ...]) -> str | None:
    """The layer that gave an answer of this route; None where an engine did."""
    return next((LAYERS[kind] for kind in hops.kinds(route) if kind in LAYERS), None)


def may_be_kept(done: Done) -> bool:
    """Whether an answer says something about its question: it ended by itself or at its limit, and was computed just now.

    An answer that another cache gave is that cache's to keep: stored again here, it would start a second life, with a new
    birthday, and outlast the facts and the lifetime it was made under.
    """
    if not isinstance(done.finish_reason, str) or done.finish_reason not in STORED_REASONS:
        return False
    return not {hops.RESPONSE_CACHE, hops.SEMANTIC_CACHE} & set(hops.kinds(done.route))


def repeated(done: Done) -> Done:
    """`done` for one who gets the answer again: nothing was used, it cost nothing, and its id names the one it repeats."""
    told = {f.name: f.default for f in fields(Done) if f.name in ("usage_note", "faults", "booked")}
    return replace(done, usage=Usage(), cost=Decimal(0), response_id=_original(done), **told)  # type: ignore[arg-type]


def _original(done: Done) -> str:
    """The response id with the time at which the answer ended, `id@seconds since 1970`: some servers repeat their ids.

    The end and not the beginning, which levers move to where their caller began to wait. `savings` reads it.
    """
    timing = done.timing
    if set(hops.REPEATED) & set(hops.kinds(done.route)) or timing.started_unix is None or timing.e2e is None:
        return done.response_id
    end = timing.started_unix + timing.e2e
    return f"{done.response_id}@{end:017.6f}" if math.isfinite(end) else done.response_id


def encode(answer: Completion) -> bytes | None:
    """A whole answer as bytes: what was said, not when; None where it holds something that would not come back the same."""
    done = replace(repeated(answer.done), timing=Timing(0.0), route=())
    chunks = [replace(chunk, at=0.0, usage=None) for chunk in answer.chunks]
    try:
        data = {"chunks": [chunk_to_json(chunk) for chunk in chunks], "done": done_to_json(done)}
        kept = json.dumps(data, separators=(",", ":"), allow_nan=False).encode("ascii")
        return kept if decode(kept) == (chunks, done) else None
    except Exception:  # noqa: BLE001 - an engine may put anything anywhere; what is not understood is not kept
        return None


def decode(kept: bytes) -> tuple[list[Chunk], Done]:
    """What `encode` kept. Raises `StreamIncomplete`, `ValueError`, `KeyError` or `TypeError` for what it did not write."""
    data: dict[str, Any] = json.loads(kept)
    return [chunk_from_json(chunk) for chunk in data["chunks"]], done_from_json(data["done"])


def text_of(kept: bytes) -> str:
    """The words of a kept answer, without its reasoning."""
    return "".join(chunk["text"] for chunk in json.loads(kept)["chunks"])


def replay(kept: bytes, hop: str, sent: float, started_unix: float) -> list[Event]:
    """A kept answer's chunks, all now, without their pauses, and its `Done`. Raises as `decode` does."""
    now = clock.now()
    chunks, done = decode(kept)
    # The running total is 0: a replay that is cut short has cost nothing either.
    events: list[Event] = [replace(chunk, at=now, usage=Usage()) for chunk in chunks]
    said = now if any(chunk.has_content for chunk in chunks) else None
    return [*events, replace(done, timing=Timing(sent, said, said, now, started_unix)).via(hop)]


async def played(events: list[Event]) -> AsyncGenerator[Event, None]:
    """`events` as a stream."""
    for event in events:
        yield event
