"""From an endpoint's bytes to its events: decompressed, decoded, and bounded at every step.

A body is server-sent events or one JSON value: whatever was asked, some endpoints answer 200 with an error, or with an
answer that is not streamed. The body's first letter shows which of the two it is. Its Content-Type does not: it is wrong as
often as right.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from labkit.request import MAX_EVENT, Decoder, EngineError, SentEvent, StreamIncomplete

STEP = 2**16
"""The most bytes that are decompressed at once, so that a bomb cannot hold up the event loop or fill the memory."""
PER_TOKEN = 2**14
"""Bytes, decompressed, that one token of an answer may take: twenty alternatives with probabilities take about 3000."""
BASE_BYTES = 2**23
"""Bytes, decompressed, that an answer may take beyond `PER_TOKEN` for each token asked for."""
_BOM = b"\xef\xbb\xbf"
ENCODINGS = "gzip, deflate"
"""The content encodings an endpoint is told it may use."""
_NO_ENCODINGS = frozenset(
    ("", "identity", "none", "null", "utf-8", "utf8", "us-ascii", "7bit", "8bit", "binary", "chunked", "aws-chunked")
)
"""What servers name as a content encoding, though the body is as it is: "none" turns a proxy's compression off."""


class Wire:
    """Reads the body of one answer. `encoding` is its Content-Encoding; `max_tokens` sets the bound of its size.

    Raises `StreamIncomplete` for a body that cannot be decompressed or is longer than its bound, `EngineError` for an
    encoding that was not asked for.
    """

    def __init__(self, encoding: str, max_tokens: int) -> None:
        self.received = 0
        self.beginning = b""
        """The first bytes, for a message about a body that is no answer."""
        self._inflate = Inflate(encoding)
        self._bound = BASE_BYTES + PER_TOKEN * max_tokens
        self._decoder = Decoder()
        self._is_json: bool | None = None
        self._json: list[bytes] = []

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`data`, decompressed, in pieces that are quick to read: at most `STEP` bytes each where it was compressed."""
        for piece in self._inflate.feed(data):
            self.received += len(piece)
            if self.received > self._bound:
                raise StreamIncomplete(
                    f"the answer has more than {self._bound} bytes, which is the bound for the tokens asked for "
                    f"({BASE_BYTES} and {PER_TOKEN} a token); raise max_tokens if it is really that long"
                )
            yield piece

    def events(self, piece: bytes) -> list[SentEvent]:
        """The events that `piece` completes. A JSON body has none before its end: `rest` returns it."""
        if self._is_json is None:
            piece = self.beginning + piece
            begin = piece.removeprefix(_BOM).lstrip()
            self.beginning = piece[:400]
            if (not begin and len(piece) < 400) or _BOM.startswith(piece):
                return []
            self._is_json = begin[:1] in (b"{", b"[")
        if not self._is_json:
            return self._decoder.feed(piece)
        self._json.append(piece)
        if self.received > MAX_EVENT:
            raise StreamIncomplete(
                f"the JSON body has more than {MAX_EVENT} bytes, which is the bound of an unstreamed answer"
            )
        return []

    def rest(self) -> list[SentEvent]:
        """The events that the end of the body completes: a JSON body as one event, or a last event without an empty line.

        A browser drops such a last event. Some gateways leave the empty line out, and dropping the event would lose the
        finish reason and the usage. An event that is cut within its JSON is dropped.
        """
        if not self._is_json:
            return [event for event in self._decoder.feed(b"\n\n") if _ended(event)]
        body, self._json = b"".join(self._json), []
        return [SentEvent(body.removeprefix(_BOM).decode("utf-8", "replace"))]


def _ended(event: SentEvent) -> bool:
    """Whether the last event is complete."""
    if event.event == "error" or event.data.strip() == "[DONE]":
        return True
    try:
        json.loads(event.data)
    except (ValueError, RecursionError):
        return False
    return True


class Inflate:
    """Decompresses gzip and deflate, the latter with or without its zlib header: endpoints send both.

    `encoding` is the body's Content-Encoding; a body without one, or with a name for none, is passed on. Raises
    `EngineError` for an encoding that was not asked for, `StreamIncomplete` for damaged bytes. It has no bound: whoever
    reads on counts the bytes.
    """

    def __init__(self, encoding: str) -> None:
        kind = ", ".join(name for part in encoding.lower().split(",") if (name := part.strip()) not in _NO_ENCODINGS)
        self._plain = not kind
        if not self._plain and kind not in ("gzip", "x-gzip", "deflate"):
            raise EngineError(
                f"the endpoint sent its answer in the content encoding {encoding[:40]!r}, though only {ENCODINGS} were "
                "asked for; switch compression off at the endpoint or the proxy before it"
            )
        self._gzip = kind != "deflate"
        self._z: Any = None  # made when the first two bytes are there: they tell the format
        self._head = b""
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """`data`, decompressed, in pieces of at most `STEP` bytes each where it was compressed."""
        if self._plain:
            yield data
            return
        while data:
            if self._z is None:
                self._head += data
                if len(self._head) < 2:
                    return
                data, self._head = self._head, b""
                self._z = self._begin(data[0], data[1])
                if self._z is None:
                    return  # what follows the last member is not part of the answer
            try:
                out = self._z.decompress(data, STEP)
            except zlib.error as error:
                raise StreamIncomplete(
                    f"the answer's compressed bytes are damaged ({error}); what arrived is not whole"
                ) from error
            data = self._z.unconsumed_tail
            if self._z.eof:
                data, self._z, self._members = self._z.unused_data, None, self._members + 1
            if out:
                yield out

    def _begin(self, first: int, second: int) -> Any:
        if self._members and not (self._gzip and (first, second) == (0x1F, 0x8B)):
            return None
        if self._gzip:
            return zlib.decompressobj(31)
        with_header = first & 15 == 8 and (first * 256 + second) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if with_header else -zlib.MAX_WBITS)
