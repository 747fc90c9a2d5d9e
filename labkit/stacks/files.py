"""Stacks in files: JSON if the file's name ends in ".json", else YAML."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from labkit.request import Handler, InvalidValue
from labkit.stacks.write import from_data, to_data


def save(handler: Handler, path: str | os.PathLike[str], names: Mapping[str, object] | None = None) -> None:
    """Write `handler` to `path`, with `names` as in `to_data`. An existing file is replaced whole, or not at all.

    Raises what `to_data` raises, and OSError if the file cannot be written.
    """
    data = to_data(handler, names)
    target = Path(path)
    text = json.dumps(data, indent=1) if target.suffix == ".json" else yaml.safe_dump(data, sort_keys=False, width=120)
    beside = target.with_name(f".{target.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, target)


def load(path: str | os.PathLike[str], names: Mapping[str, object] | None = None) -> Handler:
    """The stack in the file `path`, with `names` as in `from_data`.

    Raises `InvalidValue` if the file holds no stack, and OSError if it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InvalidValue(f"{path} cannot be read: {error}") from error
    try:
        return from_data(data, names)
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error}") from error
