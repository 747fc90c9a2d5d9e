"""A stream's events as JSON values and back: the one form in which recordings, caches and connections keep them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from typing import Any

from labkit.request.errors import StreamIncomplete
from labkit.request.values import Chunk, Done, Event, Timing, TokenLogprob, ToolCallDelta, Usage


def chunk_to_json(chunk: Chunk, since: float = 0.0) -> dict[str, Any]:
    """`chunk`, with its time in seconds after `since`; optional fields that are empty are left out."""
    found: dict[str, Any] = {"at": chunk.at - since, "text": chunk.text, "tokens": chunk.tokens}
    if chunk.reasoning:
        found["reasoning"] = chunk.reasoning
    if chunk.logprobs:
        found["logprobs"] = [[lp.token, lp.logprob, [list(top) for top in lp.top]] for lp in chunk.logprobs]
    if chunk.tool_calls:
        found["tool_calls"] = [[call.index, call.id, call.name, call.arguments] for call in chunk.tool_calls]
    if chunk.usage is not None:
        found["usage"] = usage_to_json(chunk.usage)
    return found


def chunk_from_json(data: Mapping[str, Any], since: float = 0.0) -> Chunk:
    """The chunk that `chunk_to_json` wrote. Raises `StreamIncomplete` for any other data."""
    try:
        return Chunk(
            text=_text(data["text"]),
            at=float(data["at"]) + since,
            tokens=int(data["tokens"]),
            reasoning=_text(data.get("reasoning", "")),
            logprobs=tuple(
                TokenLogprob(_text(token), _number(logprob), tuple((_text(t), _number(p)) for t, p in top))
                for token, logprob, top in data.get("logprobs", ())
            ),
            usage=None if data.get("usage") is None else usage_from_json(data["usage"]),
            tool_calls=tuple(
                ToolCallDelta(int(i), _text(a), _text(b), _text(c)) for i, a, b, c in data.get("tool_calls", ())
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StreamIncomplete(f"this is no chunk: {error!r}; it was damaged, or not written by this lab") from error


def done_to_json(done: Done, since: float = 0.0) -> dict[str, Any]:
    """`done`, with its times in seconds after `since` and its faults as text; `booked` is left out."""
    timing = done.timing
    times = [None if t is None else t - since for t in (timing.first_token, timing.last_token, timing.done)]
    found: dict[str, Any] = {
        "usage": usage_to_json(done.usage),
        "times": times,
        "finish_reason": done.finish_reason,
        "model": done.model,
        "response_id": done.response_id,
    }
    if timing.sent != since:
        found["sent"] = timing.sent - since
    if timing.started_unix is not None:
        found["started_unix"] = timing.started_unix
    if done.route:
        found["route"] = list(done.route)
    if done.cost is not None:
        found["cost"] = format(done.cost, "f")
    if done.currency != "USD":
        found["currency"] = done.currency
    if done.usage_note:
        found["usage_note"] = done.usage_note
    if done.faults:
        found["faults"] = [str(fault) for fault in done.faults]
    return found


def done_from_json(data: Mapping[str, Any], since: float = 0.0) -> Done:
    """The `Done` that `done_to_json` wrote, without its faults. Raises `StreamIncomplete` for any other data."""
    try:
        first, last, end = (None if t is None else float(t) + since for t in data["times"])
        cost, started_unix = data.get("cost"), data.get("started_unix")
        return Done(
            usage_from_json(data["usage"]),
            Timing(
                float(data.get("sent", 0.0)) + since,
                first,
                last,
                end,
                None if started_unix is None else _number(started_unix),
            ),
            _text(data["finish_reason"]),
            _text(data["model"]),
            tuple(_text(hop) for hop in data.get("route", ())),
            None if cost is None else Decimal(_text(cost)),
            _text(data.get("currency", "USD")),
            _text(data["response_id"]),
            usage_note=_text(data.get("usage_note", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InvalidOperation) as error:
        raise StreamIncomplete(
            f"this is no end of a stream: {error!r}; it was damaged, or not written by this lab"
        ) from error


def event_to_json(event: Event) -> dict[str, Any]:
    """`event` as JSON, with its times unchanged."""
    return chunk_to_json(event) if isinstance(event, Chunk) else done_to_json(event)


def usage_to_json(usage: Usage) -> dict[str, int]:
    """All counts of `usage` by name."""
    return {f.name: getattr(usage, f.name) for f in fields(Usage)}


def usage_from_json(data: Mapping[str, Any]) -> Usage:
    """The usage that `usage_to_json` wrote. Raises `TypeError` or `InvalidValue` for any other data."""
    return Usage(**data)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.80} should be a number")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} should be a text")
    return value
