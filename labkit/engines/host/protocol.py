"""The messages between the host and its clients: one JSON object a line, over a socket that only the user can reach.

A client sends one message: `LeaseRequest`, which holds the engine until the connection closes, `ListRequest`, or
`PrepareRequest`. The host sends `{"event": "importing" | "progress" | "ready" | "failed" | "stopped" | "engines" |
"prepared" | "refused", …}`. Anything else is `Malformed`: the host answers it with "refused" and goes on, since one client's
garbage must not end the engines of the others.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# The most bytes of a client's line. The longest in practice is a lease with a chat template of some 10,000 bytes. The host's
# answer repeats the arguments and fits an empty socket's buffer (208 KiB): the host does not wait for readers.
LONGEST_LINE = 1 << 17
# The most bytes of a host's line: a list holds the arguments of all engines.
LONGEST_ANSWER = 1 << 24


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no message of this protocol, and the reason why."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """Asks for the engine that serves `model` (a folder or hub id) with vLLM's `arguments`.

    It may be stopped when it has served no request for `idle_s` seconds.
    """

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    idle_s: float = 1200.0

    def encode(self) -> bytes:
        """The request as a line."""
        return encode({"op": "lease", "model": self.model, "arguments": dict(self.arguments), "idle_s": self.idle_s})


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Asks for the engines that run."""

    def encode(self) -> bytes:
        """The request as a line."""
        return encode({"op": "list"})


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Asks to be told when vLLM has been imported, so that the host waits for an engine to be asked of it."""

    def encode(self) -> bytes:
        """The request as a line."""
        return encode({"op": "prepare"})


Request = LeaseRequest | ListRequest | PrepareRequest


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def parse_request(message: dict[str, Any] | Malformed) -> Request | Malformed:
    """The request in a client's message; a `Malformed` names the field that is wrong."""
    if isinstance(message, Malformed):
        return message
    match message.get("op"):
        case "list":
            return ListRequest()
        case "prepare":
            return PrepareRequest()
        case "lease":
            return _parse_lease(message)
        case other:
            return Malformed(f"op is {reprlib.repr(other)}; use 'lease', 'list' or 'prepare'")


def _parse_lease(message: Mapping[str, Any]) -> LeaseRequest | Malformed:
    model, arguments, idle_s = (message.get(name) for name in ("model", "arguments", "idle_s"))
    if not isinstance(model, str) or not model or not _can_be_a_path(model):
        return Malformed(f"model is {reprlib.repr(model)}; give a folder or a hub id")
    if not isinstance(arguments, dict):
        return Malformed(f"arguments is {reprlib.repr(arguments)}; give an object of vLLM's engine arguments")
    if isinstance(idle_s, bool) or not isinstance(idle_s, int | float) or math.isnan(idle_s) or idle_s <= 0:
        return Malformed(f"idle_s is {reprlib.repr(idle_s)}; give seconds above 0")
    return LeaseRequest(model, arguments, idle_s)


def _can_be_a_path(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return "\0" not in text


class Lines:
    """Joins the pieces of a byte stream into lines of at most `longest` bytes, and decodes them."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | Malformed]:
        """The messages that `data` completes, and a `Malformed` for each line that is no JSON object or too long."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = bytes(self._rest) + end
            skipped, self._skipping = self._skipping, False
            self._rest.clear()
            if skipped:
                continue  # the end of a line that has been refused
            yield _decode(line) if len(line) <= self._longest else self._too_long()
        if self._skipping:
            return
        self._rest += rest
        if len(self._rest) > self._longest:
            self._rest.clear()
            self._skipping = True
            yield self._too_long()

    def _too_long(self) -> Malformed:
        return Malformed(f"a line has more than {self._longest} bytes")


def _decode(line: bytes) -> dict[str, Any] | Malformed:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Malformed(f"a line is not JSON ({type(error).__name__})")
    return message if isinstance(message, dict) else Malformed(f"a line is {reprlib.repr(message)}; send an object")
