"""Where the fields of a record stand: found once for each shape of record, since a log has many lines and few shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from labkit.logs.names import GROUPS

Spot = tuple[int, str]
"""A place of a record, counted from 0, and the name of a field there."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHER = re.compile(r"[^a-z0-9]+")


class Places:
    """The places where a record keeps fields, in this order: itself, its response, its request, what stands beside.

    `at` are their fields by name in snake case, `spots` where each thing of `names.GROUPS` may stand, the likeliest first.
    """

    __slots__ = ("at", "spots")

    def __init__(self, record: Mapping[str, Any]) -> None:
        shapes = [_snaked(tuple(record))]
        self.at = [dict(zip(shapes[0], record.values(), strict=True))]
        own = self.at[0]
        for _, name in _spots((shapes[0],))["bodies"]:
            body = own[name]
            if body is not None and isinstance(body := opened(body), Mapping):
                inner = opened(body.get("body"))
                body = {**body, **inner} if isinstance(inner, Mapping) else body
                shape = _snaked(tuple(body))
                shapes.append(shape)
                self.at.append(dict(zip(shape, body.values(), strict=True)))
        self.spots = _spots(tuple(shapes))

    def first(self, what: str) -> Any:
        """The first value of a group of names that is not empty; None for none."""
        for place, name in self.spots[what]:
            value = self.at[place][name]
            if value is not None and value != "":
                return value
        return None

    def with_any(self, what: str) -> list[dict[str, Any]]:
        """The places that have one of the names of a group."""
        return [self.at[place] for place in dict.fromkeys(place for place, _ in self.spots[what])]


def opened(value: Any) -> Any:
    """A body that a log keeps as JSON in a text, opened; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


@lru_cache(4096)
def snake(key: str) -> str:
    """A field's name in snake case: `startTime`, `Start Time` and `start.time` are all `start_time`."""
    return _OTHER.sub("_", _CAMEL.sub("_", key).lower()).strip("_")


@lru_cache(4096)
def _snaked(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(snake(str(key)[:80]) for key in keys)


@lru_cache(1024)
def _spots(shapes: tuple[tuple[str, ...], ...]) -> dict[str, tuple[Spot, ...]]:
    known = [frozenset(shape) for shape in shapes]
    return {
        what: tuple((place, name) for place, shape in enumerate(known) for name in names if name in shape)
        for what, names in GROUPS.items()
    }
