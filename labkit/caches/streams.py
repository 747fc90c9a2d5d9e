"""Answers as streams: how a cache takes one down while it passes, keeps it as bytes, and plays it again."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any

from labkit.request import Chunk, Done, Event, Handler, Request, Timing, TokenLogprob, Usage, clock

STORED_REASONS = frozenset({"stop", "length", "tool_calls"})
RESPONSE, SEMANTIC, FLIGHT = "response-cache", "semantic-cache", "single-flight"
"""What caches write on the route of an answer that they gave."""
LAYERS = {RESPONSE: "response", SEMANTIC: "semantic", FLIGHT: "single flight"}
"""The layers by their mark on a route, as tables name them."""

Keep = Callable[[list[Chunk], Done], None]


def wants_a_sample(request: Request) -> bool:
    """Whether `request` asks for variety: sampled, and without a seed."""
    return request.temperature > 0 and request.seed is None


def may_be_kept(done: Done) -> bool:
    """Whether an answer says something about its question: it ended by itself or at its limit, and was computed just now.

    An answer that another cache gave is that cache's to keep: stored again here, it would start a second life, with a new
    birthday, and outlast the facts and the lifetime it was made under.
    """
    return done.finish_reason in STORED_REASONS and not {RESPONSE, SEMANTIC} & set(done.route)


async def taken_down(inner: Handler, request: Request, keep: Keep) -> AsyncGenerator[Event, None]:
    """The stream of `inner`, with `keep` called on the whole of it just before its `Done` is handed on.

    So whoever has seen the end of an answer finds it. A stream without its `Done` is not whole and not kept.
    """
    chunks: list[Chunk] = []
    async with aclosing(inner(request)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                chunks.append(event)
                yield event
            else:
                done = event if event.response_id else replace(event, response_id=f"labkit-{uuid.uuid4().hex}")
                keep(chunks, done)
                yield done


def encode(chunks: list[Chunk], done: Done) -> dict[str, Any]:
    """A whole stream as JSON values: what was said, not when."""
    logprobs = [[[lp.token, lp.logprob, lp.top] for lp in chunk.logprobs] for chunk in chunks]
    return {
        "chunks": [[c.text, c.reasoning, c.tokens, lps] for c, lps in zip(chunks, logprobs, strict=True)],
        "finish_reason": done.finish_reason,
        "model": done.model,
        "response_id": done.response_id,
    }


def text_of(stream: dict[str, Any]) -> str:
    """The words of an encoded stream's answer, without its reasoning."""
    return "".join(text for text, *_ in stream["chunks"])


def replay(stream: dict[str, Any], route: str, currency: str, sent: float, started_unix: float) -> list[Event]:
    """An encoded stream's chunks, all now, without their pauses, and a `Done` of zero usage and cost 0."""
    now = clock.now()
    events: list[Event] = []
    said: float | None = None
    for text, reasoning, tokens, logprobs in stream["chunks"]:
        said = now if text or reasoning else said
        alternatives = tuple(TokenLogprob(token, lp, tuple((t, p) for t, p in top)) for token, lp, top in logprobs)
        # The running total is 0: a replay that is cut short has cost nothing either.
        events.append(Chunk(text, now, tokens, reasoning, alternatives, Usage()))
    timing = Timing(sent, said, said, now, started_unix)
    done = Done(
        Usage(), timing, stream["finish_reason"], stream["model"], (route,), Decimal(0), currency, stream["response_id"]
    )
    return [*events, done]


def dump(value: Any) -> bytes:
    """JSON values as bytes for the store."""
    return json.dumps(value, separators=(",", ":")).encode()
