"""Stop an answer that has said enough: what is not generated costs nothing.

A condition is a function of the text so far, asked after every chunk. When it holds, the stream is closed down to the
engine, and the answer ends with a `Done` of what was used until then.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from labkit.request import Chunk, Done, Event, Handler, InvalidRequest, Request, Timing, Usage, clock
from labkit.streaming.after_prose import AfterProse
from labkit.streaming.partial_json import Final

ROUTE = "cancelled-early"
Condition = Callable[[str], bool]
"""Whether to stop, from the text so far."""


def stop_when(inner: Handler, condition: Condition) -> Handler:
    """Close the stream of `inner` as soon as `condition` holds, and end with finish reason "stop" and "cancelled-early".

    The `Done` says what the engine had counted up to the last chunk; where it keeps no running count, the tokens of the
    chunks, and then 0 input tokens, for nobody knows them. An engine may have begun some tokens more. Whatever keeps the
    books belongs inside of this lever, where it sees a stream that was cut short, or must be told the same by this `Done`.
    """

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        cut = _Cut(clock.now(), clock.unix_now())
        text = ""
        async with aclosing(inner(request)) as events:
            async for event in events:
                yield event
                if isinstance(event, Done):
                    return
                cut.note(event)
                text += event.text
                if condition(text):
                    break
            else:
                return  # without a Done, as it came
        # The engine has stopped by now: closed first, for whoever hears the Done may never come back.
        yield cut.done(request.model)

    return handle


@dataclass(slots=True)
class _Cut:
    """What is known of a stream while it runs."""

    sent: float
    started_unix: float
    usage: Usage = field(default_factory=Usage)
    first_token: float | None = None
    last_token: float | None = None

    def note(self, chunk: Chunk) -> None:
        counted = Usage(
            output_tokens=chunk.tokens, reasoning_tokens=0 if chunk.text or not chunk.reasoning else chunk.tokens
        )
        self.usage = self.usage + counted if chunk.usage is None else chunk.usage
        if chunk.text or chunk.reasoning:
            self.first_token = chunk.at if self.first_token is None else self.first_token
            self.last_token = chunk.at

    def done(self, model: str) -> Done:
        timing = Timing(self.sent, self.first_token, self.last_token, clock.now(), self.started_unix)
        return Done(self.usage, timing, "stop", model, (ROUTE,))


def any_of(*conditions: Condition) -> Condition:
    """Stop when one of `conditions` holds."""
    return lambda text: any(condition(text) for condition in conditions)


def enough_words(limit: int) -> Condition:
    """Stop once `limit` words are whole: the last one is when something follows it."""
    if limit < 1:
        raise InvalidRequest(f"limit is {limit} words; allow at least 1")
    return lambda text: len(text.split()) - (bool(text) and not text[-1].isspace()) >= limit


def said(pattern: str) -> Condition:
    """Stop once the regular expression `pattern` is found: a label, a verdict, an end mark."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"{pattern!r} is no regular expression: {error}") from error
    return lambda text: compiled.search(text) is not None


def gone(is_gone: Callable[[], bool]) -> Condition:
    """Stop once the reader has left, as `is_gone()` tells; it is asked at each chunk, so not before the first one."""
    return lambda _: is_gone()


def json_complete(text: str) -> bool:
    """Whether the JSON document in `text` is whole; words around it are passed over (`AfterProse` says which they are)."""
    return any(isinstance(found, Final) and found.path == () for found in AfterProse().feed(text))


def repeating(times: int = 4, at_least: int = 60, longest: int = 400) -> Condition:
    """Stop once the text ends in one passage `times` times over: a loop that a greedy model never leaves.

    Only loops of `at_least` characters together count, or a table's rule would be one; passages may have up to `longest`.
    White space alone does not count.
    """
    if times < 2 or at_least < 1 or longest < 1:
        raise InvalidRequest(f"times={times}, at_least={at_least}, longest={longest}; use 2, 1 and 1 or more")
    shortest = -(-at_least // times)

    def loops(text: str) -> bool:
        if len(text) < times * shortest:
            return False
        tail = text[-shortest:]
        first = len(text) - shortest - min(longest, len(text) // times)
        # Only where the text's last characters stood before can a passage have begun again: asked at every chunk, trying
        # each size would cost more than all the rest of the stream.
        at = text.rfind(tail, max(0, first), len(text) - shortest)
        while at >= 0:
            passage = text[at + shortest :]
            if passage.strip() and text.endswith(passage * times):
                return True
            at = text.rfind(tail, max(0, first), at + shortest - 1)
        return False

    return loops


def tokens_saved(expected: float, generated: int) -> float:
    """Output tokens that were not generated: `expected` (what such answers take on average) less `generated`, from 0.

    Raises `InvalidRequest` for a negative count.
    """
    if not expected >= 0 or generated < 0:
        raise InvalidRequest(f"{expected} tokens expected and {generated} generated; counts start at 0")
    return max(0.0, expected - generated)
