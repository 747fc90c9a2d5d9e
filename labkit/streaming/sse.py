"""Server-Sent Events: how a stream of text goes to a browser over plain HTTP.

The grammar is the WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6): lines
end in LF, CR LF or CR; a line is a comment (it begins with a colon) or a field `name: value`; an empty line sends the event.
`frame` and `encode` write it, `Decoder` reads it as a browser does, from bytes that may be cut anywhere.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass

from labkit.request import (
    Chunk,
    Event,
    InvalidRequest,
    StreamIncomplete,
    chunk_from_json,
    done_from_json,
    event_to_json,
)

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b":\n\n"
"""A comment: it keeps proxies from closing a stream that is silent, and no reader sees it."""

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Message:
    """One event as a browser's `EventSource` would hand it out; `id` is the last one the stream has set."""

    data: str
    event: str = "message"
    id: str = ""


def frame(data: str, *, event: str = "", id: str | None = None, retry_ms: int | None = None) -> bytes:
    """One event on the wire. `retry_ms` tells the browser how long to wait before it connects again.

    Line ends within `data` are read back as LF, and half an emoji (a lone surrogate, which UTF-8 cannot carry) as U+FFFD.
    Raises `InvalidRequest` for a name or an id that the grammar cannot carry.
    """
    if re.search(r"[\r\n]", event):
        raise InvalidRequest(f"the event name {event!r} has a line end in it, which would end the field; take it out")
    if id is not None and re.search(r"[\r\n\0]", id):
        raise InvalidRequest(f"the id {id!r} has a line end or NUL in it; readers would ignore or cut it; take it out")
    if retry_ms is not None and retry_ms < 0:
        raise InvalidRequest(f"retry_ms is {retry_ms}; use milliseconds from 0")
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
    """A stream's event on the wire: "chunk" or "done", its fields as JSON (`labkit.request.codec`)."""
    data = json.dumps(event_to_json(event), separators=(",", ":"))  # in ASCII, so that half an emoji passes as it is
    return frame(data, event="chunk" if isinstance(event, Chunk) else "done", id=id)


def to_event(message: Message) -> Event | None:
    """The stream's event that `encode` wrote, but for faults; None for a message of any other name.

    Raises `StreamIncomplete` for data that is not what the name says. Times are on the sender's clock.
    """
    if message.event not in ("chunk", "done"):
        return None
    read = chunk_from_json if message.event == "chunk" else done_from_json
    try:
        return read(json.loads(message.data))
    except (ValueError, RecursionError, StreamIncomplete) as error:
        raise StreamIncomplete(f"event {message.id!r} is no {message.event}: {error}") from error


class Decoder:
    """Takes a stream's bytes piece by piece and hands out its messages.

    `last_event_id` is what a reader sends as `Last-Event-ID` when it connects again; `retry_ms` is how long the server
    asked it to wait before, None if it did not. An event that the stream's end cuts is never handed out.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._after_cr = False
        self._data: list[str] = []
        self._event = ""
        self._id = last_event_id

    def feed(self, piece: bytes) -> list[Message]:
        """The messages that `piece` completes."""
        text = self._text.decode(piece)
        if self._after_cr and text:
            text = text.removeprefix("\n")  # the CR at the last piece's end has ended the line already
            self._after_cr = False
        if text:
            self._after_cr = text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        if lines:
            lines[0] = self._line + lines[0]
            self._line = rest
        else:
            self._line += rest
        return [message for line in lines if (message := self._take(line)) is not None]

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._send()
        name, _, value = line.partition(":")  # a comment has the empty name
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch(r"[0-9]+", value):
            self.retry_ms = int(value)
        return None

    def _send(self) -> Message | None:
        self.last_event_id = self._id
        data, self._data = self._data, []
        event, self._event = self._event, ""
        return Message("\n".join(data), event or "message", self._id) if data else None
