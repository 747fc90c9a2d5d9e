"""Measured values as JSON and back, so that a recording can hold what a chapter measured.

Plain values, lists and dicts with text keys stay as they are. Everything else becomes an object whose key begins with "$".
Only the lab's own dataclasses and a few types of the standard library, numpy and pandas can be kept: reading a file never
runs code that the file names.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from labkit.extras import extra
from labkit.workbook.exercise import ExerciseError

_PACKAGE = "labkit."


def to_json(value: Any) -> Any:
    """`value` in plain JSON values. Raises `ExerciseError` for a value that cannot be kept, and names its type."""
    import numpy as np

    with extra("analysis"):
        import pandas as pd

    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case np.floating() | float():
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        case np.bool_() | np.integer():
            return value.item()
        case Decimal():
            return {"$decimal": str(value)}
        case list():
            return [to_json(one) for one in value]
        case tuple():
            return {"$tuple": [to_json(one) for one in value]}
        case set() | frozenset():
            return {f"${type(value).__name__}": [to_json(one) for one in sorted(value, key=repr)]}
        case dict() | MappingProxyType():
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: to_json(one) for key, one in value.items()}
            return {"$dict": [[to_json(key), to_json(one)] for key, one in value.items()]}
        case np.ndarray():
            return {"$array": to_json(value.tolist())}
        case pd.DataFrame():
            return {
                "$frame": {
                    "columns": to_json(list(value.columns)),
                    "index": None if isinstance(value.index, pd.RangeIndex) else to_json(value.index.tolist()),
                    "rows": [to_json(list(row)) for row in value.itertuples(index=False, name=None)],
                }
            }
    if is_dataclass(value) and not isinstance(value, type) and type(value).__module__.startswith(_PACKAGE):
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.init and not _by_default(value, f)}
        kept = {name: to_json(one) for name, one in given.items()}
        return {"$lab": f"{type(value).__module__}:{type(value).__qualname__}", "fields": kept}
    raise ExerciseError(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be kept in a recording; measure rows of numbers and "
        "texts, or values of labkit's dataclasses"
    )


def from_json(kept: Any) -> Any:
    """The value that `to_json` was given; a frozen set of plain types. Raises `ExerciseError` for what it did not write."""
    if isinstance(kept, list):
        return [from_json(one) for one in kept]
    if not isinstance(kept, dict):
        return kept
    kind = next(iter(kept), "")
    if not kind.startswith("$"):
        return {key: from_json(one) for key, one in kept.items()}
    content = kept[kind]
    match kind:
        case "$float":
            return float(content)
        case "$decimal":
            return Decimal(content)
        case "$tuple":
            return tuple(from_json(content))
        case "$set":
            return set(from_json(content))
        case "$frozenset":
            return frozenset(from_json(content))
        case "$dict":
            return {_hashable(from_json(key)): from_json(one) for key, one in content}
        case "$array":
            import numpy as np

            return np.array(from_json(content))
        case "$frame":
            with extra("analysis"):
                import pandas as pd

            columns, index = from_json(content["columns"]), from_json(content["index"])
            return pd.DataFrame(from_json(content["rows"]), columns=columns, index=index)
        case "$lab":
            return _lab_value(content, kept["fields"])
    raise ExerciseError(f"a recording holds a value of the unknown kind {kind!r}; record the chapter again")


def _by_default(value: Any, field: Field[Any]) -> bool:
    """Whether the field holds its default, so that a new instance gets it without being told."""
    if field.default is not MISSING:
        default = field.default
    elif field.default_factory is not MISSING:
        default = field.default_factory()
    else:
        return False
    mine = getattr(value, field.name)
    return type(mine) is type(default) and bool(mine == default)


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _lab_value(name: str, values: Mapping[str, Any]) -> Any:
    """An instance of the lab's own dataclass of that name."""
    module, _, path = name.partition(":")
    if not module.startswith(_PACKAGE):
        raise ExerciseError(f"a recording names {name!r}, which is not labkit's; do not use that file")
    try:
        made: Any = importlib.import_module(module)
        for part in path.split("."):
            made = getattr(made, part)
        if not (isinstance(made, type) and is_dataclass(made)):
            raise TypeError(f"{name} is no dataclass")
        return made(**{key: from_json(value) for key, value in values.items()})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ExerciseError(f"a recording holds a {name} of another version ({error}); record the chapter again") from error
