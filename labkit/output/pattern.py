"""A JSON schema as one regular expression, which leaves the model a single way of spacing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

from labkit.output.schema import resolved, types_of
from labkit.request import InvalidValue
from labkit.routing import JsonSchema

Spacing = Literal["spaced", "compact"]
_MARKS = {"spaced": (", ", ": "), "compact": (",", ":")}


def pattern_of(schema: Mapping[str, Any], spacing: Spacing = "spaced") -> str:
    r"""`schema` as one regular expression that allows a single way of spacing, for engines that take one with a request.

    "spaced" writes `{"a": 1, "b": 2}`, as most models have learned it, "compact" writes `{"a":1,"b":2}`. All properties
    are written, in the schema's order. Bounds of integers hold by their number of digits only: check the rest on arrival.
    Raises `InvalidValue`, with the path, for what no such expression can say: optional properties, open objects, recursion,
    arrays without maxItems.
    """
    if spacing not in _MARKS:
        raise InvalidValue(f'spacing is {spacing!r:.40}; use "spaced" or "compact"')
    JsonSchema(schema)
    return _pattern(schema, schema, "$", (), *_MARKS[spacing])


_CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])'


def _pattern(node: Any, root: Mapping[str, Any], path: str, within: tuple[str, ...], comma: str, colon: str) -> str:
    def of(inner: Any, where: str) -> str:
        return _pattern(inner, root, where, within, comma, colon)

    if not isinstance(node, Mapping):
        raise InvalidValue(f"{path} is {node!r:.40}, which no regular expression can say; give it a type")
    if "$ref" in node:
        reference = str(node["$ref"])
        if reference in within:
            raise InvalidValue(
                f"{path} holds itself ({reference}), which no regular expression can say; write out its levels"
            )
        return _pattern(resolved(reference, root, path), root, path, (*within, reference), comma, colon)
    if "const" in node or "enum" in node:
        values = [node["const"]] if "const" in node else node["enum"]
        return _either(re.escape(json.dumps(v, ensure_ascii=False, separators=(comma, colon))) for v in values)
    for name in ("anyOf", "oneOf"):
        if name in node:
            return _either(of(inner, f"{path}.{name}[{i}]") for i, inner in enumerate(node[name]))
    types = types_of(node) or ({"object"} if "properties" in node else set())
    if len(types) != 1:
        if not types:
            _unsaid(path, "no type")
        return _either(of({**node, "type": one}, path) for one in sorted(types))
    (kind,) = types
    if kind == "object":
        properties = node.get("properties", {})
        optional = [name for name in properties if name not in node.get("required", ())]
        if not properties or optional or node.get("additionalProperties", False) is not False:
            _unsaid(path, f"optional properties ({', '.join(optional)})" if optional else "an open object")
        parts = (
            re.escape(json.dumps(name, ensure_ascii=False) + colon) + of(inner, f"{path}.properties.{name}")
            for name, inner in properties.items()
        )
        return r"\{" + re.escape(comma).join(parts) + r"\}"
    if kind == "array":
        if "maxItems" not in node or "items" not in node:
            _unsaid(path, "an array without maxItems and items")
        item, least, most = of(node["items"], f"{path}.items"), node.get("minItems", 0), node["maxItems"]
        if most < 1:
            return r"\[\]"
        more = f"{item}(?:{re.escape(comma)}{item}){{{max(0, least - 1)},{most - 1}}}"
        return rf"\[{more}\]" if least else rf"\[(?:{more})?\]"
    if kind == "string":
        if "pattern" in node:
            return f'"(?:{node["pattern"].removeprefix("^").removesuffix("$")})"'
        return f'"{_CHARACTER}{{{node.get("minLength", 0)},{node.get("maxLength", "")}}}"'
    return _PLAIN[kind] if kind in _PLAIN else _whole_number(node)


_PLAIN = {"boolean": "(?:true|false)", "null": "null", "number": r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?"}


def _whole_number(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum", node.get("exclusiveMaximum"))
    digits = 18 if low is None or high is None else max(len(str(abs(int(low)))), len(str(abs(int(high)))))
    sign = "" if low is not None and low >= 0 else "-?"
    return f"{sign}(?:0|[1-9][0-9]{{0,{digits - 1}}})"


def _either(parts: Iterable[str]) -> str:
    found = list(parts)
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"


def _unsaid(path: str, what: str) -> NoReturn:
    raise InvalidValue(
        f"{path} has {what}, which a regular expression of one spacing cannot say; require and bound it, or leave the "
        'spacing to the engine (spacing="engine")'
    )
