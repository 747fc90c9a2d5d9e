"""Server-sent events, decoded from bytes that may be cut anywhere.

The grammar is the WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6): lines
end in LF, CR LF or CR; a line is a comment (it begins with a colon) or a field `name: value`; an empty line sends the event.
The standard sets no limits; here a line and an event have one, because no answer needs more and memory is finite.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from labkit.request.errors import StreamIncomplete

MAX_LINE = 4 * 2**20
"""The most characters that one line may have."""
MAX_EVENT = 4 * 2**20
"""The most characters that the data of one event may have, over all its lines."""

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One event as a browser's `EventSource` would hand it out; `id` is the last id that the stream has set."""

    data: str
    event: str = "message"
    id: str = ""


class Decoder:
    """Takes a stream's bytes piece by piece and hands out its events.

    `last_event_id` is the text that a reader sends as `Last-Event-ID` when it connects again. `retry_ms` is how long, in
    milliseconds, the server asked it to wait before that, None if it did not ask. An event that the stream's end cuts is
    never handed out. The work is linear in the bytes, however they are cut. `feed` raises `StreamIncomplete` for a line or
    an event above its bound, in characters.
    """

    def __init__(self, last_event_id: str = "", *, max_line: int = MAX_LINE, max_event: int = MAX_EVENT) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._begun: list[str] = []  # the pieces of the line that has not ended
        self._begun_size = 0
        self._after_cr = False
        self._data: list[str] = []
        self._data_size = 0
        self._event = ""
        self._id = last_event_id
        self._max_line = max_line
        self._max_event = max_event

    def feed(self, piece: bytes) -> list[SentEvent]:
        """The events that `piece` completes."""
        text = self._text.decode(piece)
        if self._after_cr and text:
            text = text.removeprefix("\n")  # the CR at the last piece's end has ended the line already
            self._after_cr = False
        if not text:
            return []
        if "\r" in text:
            self._after_cr = text.endswith("\r")
            lines = _LINE_END.split(text)
        else:
            lines = text.split("\n")
        rest = lines.pop()
        if lines and self._begun:
            self._begun.append(lines[0])
            lines[0] = "".join(self._begun)
            self._begun, self._begun_size = [], 0
        if rest:
            self._begun.append(rest)
            self._begun_size += len(rest)
            self._check("line", self._begun_size, self._max_line)
        events = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append(self._send())
            else:
                self.last_event_id, self._event = self._id, ""
        return events

    def _take(self, line: str) -> None:
        self._check("line", len(line), self._max_line)
        name, _, value = line.partition(":")  # a comment has the empty name
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_size += len(value) + 1
            self._check("event", self._data_size, self._max_event)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch(r"[0-9]{1,15}", value):
            self.retry_ms = int(value)
        elif name.startswith("\ufeff"):  # some servers begin every event with a BOM, not only the stream
            self._take(line[1:])

    def _send(self) -> SentEvent:
        self.last_event_id = self._id
        event, self._event = self._event, ""
        data, self._data, self._data_size = self._data, [], 0
        return SentEvent("\n".join(data), event or "message", self._id)

    def _check(self, what: str, size: int, bound: int) -> None:
        if size > bound:
            raise StreamIncomplete(
                f"one {what} of the stream has more than {bound} characters, which is the bound of a {what}; "
                "what arrived is not a whole answer"
            )
