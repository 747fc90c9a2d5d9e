"""JSON schemas, rewritten so that answers are shorter: the order of fields, and keys of one letter with a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from labkit.request import InvalidValue
from labkit.routing import JsonSchema


def plain_json(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` as JSON reads it, with lists for tuples; a copy. Raises `InvalidValue` for what JSON cannot write."""
    try:
        made = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"a schema is an object of JSON; {schema!r:.80} is none: {error}") from error
    if not isinstance(made, dict):
        raise InvalidValue(f"a schema is an object of JSON; {schema!r:.80} is none")
    return made


def ordered(schema: Mapping[str, Any], *first: str) -> dict[str, Any]:
    """`schema` with these properties in front, in this order: a grammar has the model write them in the schema's order.

    Steps before the answer let a model work it out; the answer before the steps lets a reader have it at once. Raises
    `InvalidValue` for a name that is no property.
    """
    properties = schema.get("properties", {})
    missing = [name for name in first if name not in properties]
    if missing:
        raise InvalidValue(f"{', '.join(missing)} is no property of the schema; it has {', '.join(properties) or 'none'}")
    names = (*first, *(name for name in properties if name not in first))
    return {**schema, "properties": {name: properties[name] for name in names}}


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Short keys for a schema's keys: `short` by the long name. Made by `shortened`."""

    short: Mapping[str, str]

    @property
    def told(self) -> str:
        """What a model must be told once, in the part of the prompt that requests share."""
        return "Keys: " + ", ".join(f"{short} is {name}" for name, short in self.short.items()) + "."

    def restored(self, value: Any) -> Any:
        """`value` with its keys in full. A key that is not in the table stays as it is."""
        long = {short: name for name, short in self.short.items()}
        if isinstance(value, Mapping):
            return {long.get(key, key): self.restored(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.restored(inner) for inner in value]
        return value


def shortened(schema: Mapping[str, Any]) -> tuple[dict[str, Any], KeyTable]:
    """`schema` with keys of one or two letters, and the table to restore them: each name has one short key everywhere.

    Raises `InvalidValue` for a schema whose objects may have keys that it does not name: those could not be told apart.
    """
    JsonSchema(schema)
    table: dict[str, str] = {}

    def renamed(node: Any, path: str) -> Any:
        if not isinstance(node, Mapping):
            return node
        if "properties" in node or "object" in types_of(node):
            if node.get("additionalProperties") is not False or "patternProperties" in node:
                raise InvalidValue(
                    f"{path} may have keys that it does not name, so short keys could not be restored; set "
                    "additionalProperties to false"
                )
            for name in node.get("properties", {}):
                table.setdefault(name, _letters(len(table)))
        made: dict[str, Any] = {}
        for key, inner in node.items():
            if key == "properties":
                made[key] = {table[name]: renamed(value, f"{path}.properties.{name}") for name, value in inner.items()}
            elif key == "required":
                made[key] = [table.get(name, name) for name in inner]
            elif key in ("$defs", "definitions"):
                made[key] = {name: renamed(value, f"{path}.{key}.{name}") for name, value in inner.items()}
            elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
                made[key] = [renamed(value, f"{path}.{key}[{i}]") for i, value in enumerate(inner)]
            elif key == "items":
                made[key] = renamed(inner, f"{path}.items")
            else:
                made[key] = deepcopy(inner)
        return made

    return renamed(schema, "$"), KeyTable(table)


def _letters(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return (_letters(number // 26 - 1) if number >= 26 else "") + alphabet[number % 26]


def types_of(node: Mapping[str, Any]) -> frozenset[str]:
    """The types that a part of a schema names; empty for none."""
    given = node.get("type", ())
    return frozenset((given,) if isinstance(given, str) else given)


def resolved(reference: str, root: Mapping[str, Any], path: str) -> Any:
    """What a `$ref` at `path` leads to. Raises `InvalidValue` where that is nothing in the schema."""
    node: Any = root
    if reference == "#":
        return node
    for step in reference.removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not reference.startswith("#/") or not isinstance(node, Mapping) or step not in node:
            raise InvalidValue(f"{path} refers to {reference!r}, which is not in the schema; put it under $defs")
        node = node[step]
    return node
