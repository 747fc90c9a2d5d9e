"""Tool calls as endpoints stream them, numbered so that no two are mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labkit.engines.content import name_of
from labkit.request import EngineError, StreamIncomplete, ToolCallDelta

MOST_CALLS = 1024
"""The most tool calls that one answer may hold."""


class ToolCalls:
    """Reads the pieces of an answer's tool calls.

    OpenAI numbers each piece with the `index` of its call. Other endpoints leave the index out, give every call the index 0
    and an id of its own, or repeat id and name with every piece. So the first of these rules that fits decides:

    - A piece with a known id belongs to the call with that id, unless it has a new index and another name.
    - A piece with a known index belongs to the call with that index, unless both have an id, or `_begins_anew` says that it
      begins a call.
    - A piece with no index, no id and no name belongs to the call before it.
    - Any other piece begins a call.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._names: list[str] = []
        self._whole: list[bool | None] = []  # whether its arguments came whole in one piece; None before any came
        self._by_index: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, pieces: Any) -> tuple[ToolCallDelta, ...]:
        """The pieces in a delta's `tool_calls`.

        Raises `EngineError` for a call of anything but a function, `StreamIncomplete` for a piece that cannot be read.
        """
        if isinstance(pieces, Mapping):
            pieces = [pieces]
        if not isinstance(pieces, list):
            raise StreamIncomplete(f"the endpoint sent tool_calls that are a {type(pieces).__name__}, not a list")
        return tuple(self._read(piece) for piece in pieces if piece is not None)

    def legacy(self, piece: Any) -> tuple[ToolCallDelta, ...]:
        """The piece in a delta's `function_call`, the API's form before there were tools: an answer has one call at most."""
        return (self._read({"index": 0, "function": piece}),)

    def _read(self, piece: Any) -> ToolCallDelta:
        if not isinstance(piece, Mapping):
            raise StreamIncomplete(f"the endpoint sent a tool call that is a {type(piece).__name__}, not an object")
        function = piece.get("function")
        kind = piece.get("type")
        if function is None and kind not in (None, "", "function"):
            raise EngineError(
                f"the model called a tool of kind {name_of(kind)[:40]!r}; this lab carries calls of functions only"
            )
        if function is None:
            function = {name: piece.get(name) for name in ("name", "arguments")}
        if not isinstance(function, Mapping):
            raise StreamIncomplete(f"the endpoint sent a tool call whose function is a {type(function).__name__}")
        id, name = _text(piece.get("id"), "id"), _text(function.get("name"), "name")
        arguments = _arguments(function.get("arguments"))
        number = self._number(piece.get("index"), id, name, arguments)
        new_id = id if not self._ids[number] else ""
        known = self._names[number]
        new_name = "" if name == known else name
        self._ids[number] += new_id
        self._names[number] += new_name
        if arguments:
            self._whole[number] = self._whole[number] is None and _is_object(arguments)
        return ToolCallDelta(number, new_id, new_name, arguments)

    def _number(self, index: Any, id: str, name: str, arguments: str) -> int:
        index = index if type(index) is int and index >= 0 else None
        at = self._by_index.get(index) if index is not None else None
        if id and id in self._ids:
            known = self._ids.index(id)
            if not (index is not None and at is None and name and name != self._names[known]):
                return known
        if at is not None and (not id or not self._ids[at]) and not self._begins_anew(at, id, name, arguments):
            return at
        if index is None and self._ids and not id and not name:
            return len(self._ids) - 1
        if len(self._ids) >= MOST_CALLS:
            raise StreamIncomplete(f"the answer has more than {MOST_CALLS} tool calls, which is the bound of an answer")
        self._ids.append("")
        self._names.append("")
        self._whole.append(None)
        if index is not None:
            self._by_index[index] = len(self._ids) - 1  # a new id that comes with a known index takes the index over
        return len(self._ids) - 1

    def _begins_anew(self, at: int, id: str, name: str, arguments: str) -> bool:
        """Whether a piece with the index of call `at`, but no id, belongs to a new call.

        It does where it has a name, the call has arguments already, and either the names differ or the arguments of both are
        whole JSON objects.
        """
        if id or not name or self._whole[at] is None:
            return False
        return name != self._names[at] or (self._whole[at] is True and _is_object(arguments))


def _is_object(text: str) -> bool:
    """Whether `text` is a JSON object and nothing else."""
    try:
        return text[:1] == "{" and text[-1:] == "}" and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if what == "id" and type(value) is int and abs(value) < 10**30:
        return str(value)
    raise StreamIncomplete(f"the endpoint sent a tool call whose {what} is a {type(value).__name__}, not text")


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list):  # sent as JSON, where the API has text
        try:
            return json.dumps(value, ensure_ascii=False)
        except (ValueError, RecursionError) as error:
            raise StreamIncomplete("the endpoint sent arguments of a tool call that are nested too deep to write") from error
    raise StreamIncomplete(f"the endpoint sent arguments of a tool call that are a {type(value).__name__}, not text")
