"""Server-Sent Events: how a stream of text goes to a browser over plain HTTP.

The grammar is the WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6): lines
end in LF, CR LF or CR; a line is a comment (it begins with a colon) or a field `name: value`; an empty line sends the event.
`frame` and `encode` write this grammar. `Decoder` reads it; it is in `labkit.request`, where the endpoint's client needs it.
"""

from __future__ import annotations

import json
import re

from labkit.request import (
    Chunk,
    Event,
    InvalidValue,
    SentEvent,
    StreamIncomplete,
    chunk_from_json,
    done_from_json,
    event_to_json,
)

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b":\n\n"
"""A comment, which readers ignore; it keeps proxies from closing a silent stream."""

_LINE_END = re.compile(r"\r\n|\n|\r")


def frame(data: str, *, event: str = "", id: str | None = None, retry_ms: int | None = None) -> bytes:
    """One event in the bytes that are sent. `retry_ms` tells the browser how many ms to wait before it connects again.

    Line ends within `data` are read back as LF, and half an emoji (a lone surrogate, which UTF-8 cannot carry) as U+FFFD.
    Raises `InvalidValue` for a name or an id that the grammar cannot carry, and for a negative `retry_ms`.
    """
    if re.search(r"[\r\n]", event):
        raise InvalidValue(f"the event name {event!r} has a line end in it, which would end the field; take it out")
    if id is not None and re.search(r"[\r\n\0]", id):
        raise InvalidValue(f"the id {id!r} has a line end or NUL in it; readers would ignore or cut it; take it out")
    if retry_ms is not None and retry_ms < 0:
        raise InvalidValue(f"retry_ms is {retry_ms}; use milliseconds from 0")
    lines = [f"event: {event}"] if event else []
    lines += [] if id is None else [f"id: {id}"]
    lines += [] if retry_ms is None else [f"retry: {retry_ms}"]
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    text = "\n".join(lines) + "\n\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()  # joins halves that meet


def encode(event: Event, id: str) -> bytes:
    """A stream's event as bytes to send: named "chunk" or "done", its fields as JSON (`labkit.request.codec`)."""
    data = json.dumps(event_to_json(event), separators=(",", ":"))  # in ASCII, so that half an emoji is kept as it is
    return frame(data, event="chunk" if isinstance(event, Chunk) else "done", id=id)


def to_event(message: SentEvent) -> Event | None:
    """The event of a stream that `encode` wrote; None for a message of any other name.

    Raises `StreamIncomplete` where the data does not fit the name. Times are on the sender's clock.
    """
    if message.event not in ("chunk", "done"):
        return None
    read = chunk_from_json if message.event == "chunk" else done_from_json
    try:
        return read(json.loads(message.data))
    except (ValueError, RecursionError, StreamIncomplete) as error:
        raise StreamIncomplete(f"event {message.id!r} is no {message.event}: {error}") from error
