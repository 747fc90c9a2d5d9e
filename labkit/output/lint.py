"""The lint of a JSON schema: what makes answers long, what the engine refuses, and what it does not hold the model to.

The rules are those of vLLM 0.32 with xgrammar 0.2.8, each tried live or read in its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from labkit.output.schema import resolved, types_of
from labkit.routing import JsonSchema

_KNOWN = frozenset(
    [
        "$schema", "$id", "$ref", "$defs", "definitions", "$comment", "$anchor", "title", "description", "default",
        "examples", "deprecated", "readOnly", "writeOnly", "type", "enum", "const", "properties", "required",
        "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties", "items",
        "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains", "minLength",
        "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas",
        "unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType",
    ]
)  # fmt: skip
_FORMATS = frozenset(
    [
        "email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri", "uri-reference",
        "uri-template", "json-pointer", "relative-json-pointer",
    ]
)  # fmt: skip
_UNCHECKED = ("not", "if", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems")


@dataclass(frozen=True, slots=True)
class SchemaIssue:
    """A place in a schema that costs tokens or does not do what it says: the JSON path, the rule, why, and the fix.

    Rules: "endless" (the answer may go on to its limit), "refused" (the engine does not compile it), "unchecked" (the engine
    does not hold the model to it), "open" (more may come than was asked for).
    """

    path: str
    rule: Literal["endless", "refused", "unchecked", "open"]
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}; {self.fix}"


def lint_schema(schema: Mapping[str, Any]) -> list[SchemaIssue]:
    """What to change in `schema` before answers are paid for, in the order of the schema; empty where nothing is.

    Raises `InvalidValue` for what is no JSON schema, and for a reference that leads nowhere, with its path.
    """
    JsonSchema(schema)
    return list(_lint(schema, schema, "$", ()))


def _lint(node: Any, root: Mapping[str, Any], path: str, within: tuple[str, ...]) -> Iterator[SchemaIssue]:
    if node is True or node == {}:
        yield SchemaIssue(
            path,
            "endless",
            "an empty schema allows any JSON, so a number of a thousand digits too",
            "say the type, and its bounds",
        )
        return
    if not isinstance(node, Mapping):
        return
    if "$ref" in node:
        reference = str(node["$ref"])
        if reference in within:
            yield SchemaIssue(
                path,
                "endless",
                f"it holds itself ({reference}), so an answer may nest without end",
                "write out as many levels as are needed",
            )
            return
        yield from _lint(resolved(reference, root, path), root, path, (*within, reference))
        return
    for name in node:
        if name not in _KNOWN:
            yield SchemaIssue(
                path, "unchecked", f"{name!r} is no keyword of JSON Schema", "correct its spelling, or take it out"
            )
    for name in _UNCHECKED:
        if name in node:
            yield SchemaIssue(
                path,
                "unchecked",
                f"grammars leave {name!r} out",
                "check it on arrival, or say it with anyOf, enum, required",
            )
    yield from _refused(node, path)
    yield from _endless(node, path)
    if isinstance(node.get("properties"), Mapping):
        required = node.get("required", ())
        for name, inner in node["properties"].items():
            if name not in required:
                yield SchemaIssue(
                    f"{path}.properties.{name}",
                    "open",
                    "it is optional, so a model may leave it out, or write it for nothing",
                    "name it in required (and allow null)",
                )
            yield from _lint(inner, root, f"{path}.properties.{name}", within)
    for name in ("items", "additionalProperties"):
        if isinstance(node.get(name), Mapping):
            yield from _lint(node[name], root, f"{path}.{name}", within)
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for i, inner in enumerate(node.get(name, ())):
            yield from _lint(inner, root, f"{path}.{name}[{i}]", within)


def _endless(node: Mapping[str, Any], path: str) -> Iterator[SchemaIssue]:
    if "enum" in node or "const" in node:
        return
    types = types_of(node)
    if not types and not node.keys() & {"anyOf", "oneOf", "allOf", "properties"}:
        yield SchemaIssue(path, "endless", "it has no type, so any JSON fits", "say the type")
    if "string" in types and not node.keys() & {"maxLength", "format"} and not _bounded(node.get("pattern")):
        yield SchemaIssue(
            path, "endless", "a string without an end", "set maxLength, or a pattern without * and +, or an enum"
        )
    if "number" in types:
        yield SchemaIssue(
            path,
            "endless",
            "a number may have digits without end behind its point, whatever its bounds",
            "ask for an integer of the smallest unit, or for a string with a pattern such as ^[0-9]{1,6}\\.[0-9]{2}$",
        )
    if "integer" in types and not (
        node.keys() & {"maximum", "exclusiveMaximum"} and node.keys() & {"minimum", "exclusiveMinimum"}
    ):
        yield SchemaIssue(
            path, "endless", "a whole number without bounds may have digits without end", "set minimum and maximum"
        )
    if "array" in types and "maxItems" not in node:
        yield SchemaIssue(path, "endless", "an array without an end", "set maxItems")
    if "array" in types and "items" not in node and "prefixItems" not in node:
        yield SchemaIssue(path, "endless", "an array of anything", "say in items what it holds")
    if "object" in types or "properties" in node:
        if not node.get("properties") and not isinstance(node.get("additionalProperties"), Mapping):
            yield SchemaIssue(path, "endless", "an object with any keys", "name its properties")
        elif node.get("additionalProperties", True) is not False:
            yield SchemaIssue(
                path, "open", "an object that may have more keys than are named", "set additionalProperties to false"
            )


def _refused(node: Mapping[str, Any], path: str) -> Iterator[SchemaIssue]:
    types = types_of(node)
    found: list[tuple[str, str]] = []
    if types & {"integer", "number"} and "multipleOf" in node:
        found.append(("multipleOf", "list the values in an enum, or check it on arrival"))
    if "array" in types:
        found += [
            (name, "check it on arrival")
            for name in ("uniqueItems", "contains", "minContains", "maxContains")
            if name in node
        ]
    if "string" in types and "format" in node and node["format"] not in _FORMATS:
        found.append((f"the format {node['format']!r}", "write it as a pattern"))
    if "string" in types and node.keys() & {"pattern", "format"} and node.keys() & {"minLength", "maxLength"}:
        found.append(("a pattern or format beside a length", "put the length into the pattern, as in ^[a-z]{1,20}$"))
    if isinstance(node.get("patternProperties"), Mapping) and (
        "properties" in node or "propertyNames" in node or len(node["patternProperties"]) > 1
    ):
        found.append(("patternProperties beside other properties", "name the properties"))
    elif "propertyNames" in node and "properties" in node:
        found.append(("propertyNames beside properties", "name the properties"))
    if len(node.get("allOf", ())) > 1:
        found.append(("allOf with several parts", "write them as one schema"))
    for what, fix in found:
        yield SchemaIssue(path, "refused", f"xgrammar does not compile {what}", fix)


def _bounded(pattern: object) -> bool:
    """Whether no part of a regular expression may repeat without end."""
    if not isinstance(pattern, str):
        return False
    bare = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", pattern)
    return re.search(r"[*+]|\{\d*,\}", bare) is None
