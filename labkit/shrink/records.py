"""Shorter ways to write JSON, each of which `restore` turns back: without white space, as columns, with short keys.

*Minified*: `{"id":1,"name":"Tent"}`. *Columns*: lists of records as a line of names and a line a record, with tabs between:

    {"total":2}

    orders:
    id<tab>name<tab>address.city
    7<tab>Tent<tab>Fordham
    8<tab><tab>Bexton

A cell is a text as it stands, or JSON where that could be mistaken (5, "5", true, null, lists, texts with tabs); an
empty cell is a key that the record lacks. Where all records hold a record under a key, that gets columns of its own.
Records that stand under keys of one object and are of one kind get a first column `(key)`. The first line holds all
else, and is missing where the records are all there is. *Short keys*: a table of the long keys that are said often, and
then the JSON with their short forms.

Numbers keep their digits as they are written (1.0 is not 1, and 20 digits stay 20). The order of an object's keys, which has
no meaning in JSON, is not kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from string import ascii_lowercase
from typing import Any, TypeAlias

from labkit.request import InvalidValue

_MIN_ROWS = 2
_DEEPEST = 100
_MOST_EMPTY = 4.0  # cells for each value that there is; a table with more holes is longer than its JSON
_MOST_EMPTY_KEYED = 1.5  # the same where the records have keys: they must be of one kind to be rows of one table
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[^\W\d][\w\-]*")
_KEY = re.compile(r'"(?:[^"\\]|\\.)*+"|[^."]++')
_KEYS = "keys "
_OF_KEYS = "(key)"
_LITERALS = ("true", "false", "null")


class Number(str):
    """A number of a JSON text, in the digits in which it is written there."""

    __slots__ = ()


Value: TypeAlias = "dict[str, Any] | list[Any] | str | Number | bool | None"
_Path: TypeAlias = tuple[str, ...]


def read(text: str) -> Value:
    """The value of a JSON text, its numbers as they are written.

    Raises `InvalidValue` for what is not JSON or could not be restored: broken texts, keys given twice in one object,
    numbers that are none (NaN), and objects within one another by the hundred.
    """
    try:
        value: Value = json.loads(
            text, parse_float=Number, parse_int=Number, parse_constant=_refused, object_pairs_hook=_once
        )
        _check_depth(value)
    except InvalidValue:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{text!r:.60} is no JSON that can be restored ({error!s:.80})") from error
    return value


def _check_depth(value: Value) -> None:
    """Raise `InvalidValue` for a value deeper than the writers here go, which call themselves for each level."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidValue(f"it is deeper than {_DEEPEST} levels")


def _refused(constant: str) -> None:
    raise InvalidValue(f"{constant} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise InvalidValue(f"an object has a key twice: {[key for key, _ in pairs]!r:.120}")
    return made


def minified(value: Value) -> str:
    """`value` as JSON without white space, in its own script; signs that nobody sees are escaped."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return _HIDDEN.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        return "{" + ",".join(f"{minified(key)}:{minified(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(minified, value)) + "]"
    return json.dumps(value)


def columns(value: Value) -> str | None:
    """`value` with its records as tables; None where it has none."""
    if (table := _table(value)) is not None or not isinstance(value, dict):
        return table
    rest, tables = _split(value, ())
    if not tables:
        return None
    return "\n\n".join([minified(rest), *(f"{_path(path)}:\n{table}" for path, table in tables)])


def short_keys(value: Value) -> str | None:
    """`value` as JSON with short forms of its long keys, below the table of them; None where that is no shorter."""
    said = Counter(_keys(value))
    free = (
        "".join(letters)
        for length in (1, 2, 3)
        for letters in product(ascii_lowercase, repeat=length)
        if "".join(letters) not in said
    )
    short: dict[str, str] = {}
    for key, times in said.most_common():
        if times > 1 and (times - 1) * len(minified(key)) > 12 + 4 * times and (name := next(free, None)) is not None:
            short[key] = name
    if not short:
        return None
    table: Value = {name: key for key, name in short.items()}
    return f"{_KEYS}{minified(table)}\n{minified(_renamed(value, short))}"


def restore(text: str) -> str:
    """The minified JSON for which `minified`, `columns` or `short_keys` gave `text`.

    Raises `InvalidValue` for a text that none of them gives.
    """
    if text.startswith(_KEYS):
        table, _, body = text.removeprefix(_KEYS).partition("\n")
        names = read(table)
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise InvalidValue(f"{table!r:.60} is no table of keys")
        return minified(_renamed(read(body), names))
    if not text.startswith(("{", "[")):
        return minified(_records(text))
    first, *sections = text.split("\n\n")
    whole = read(first)
    for section in sections:
        label, _, table = section.partition(":\n")
        *path, last = _parts(label)
        inner: Any = whole
        for key in path:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise InvalidValue(f"{label!r:.60} names no place in {first!r:.60}")
        inner[last] = _records(table)
    return minified(whole)


def without(value: Value, nulls: bool, defaults: Mapping[str, object]) -> Value:
    """`value` without the keys whose value is null (if `nulls`) or what `defaults` gives for the key. This loses them."""
    if isinstance(value, list):
        return [without(each, nulls, defaults) for each in value]
    if not isinstance(value, dict):
        return value
    usual = {key: json.dumps(default, ensure_ascii=False) for key, default in defaults.items()}
    return {
        key: without(each, nulls, defaults)
        for key, each in value.items()
        if not (nulls and each is None) and (key not in usual or minified(each) != usual[key])
    }


def _split(value: dict[str, Any], path: _Path) -> tuple[dict[str, Any], list[tuple[_Path, str]]]:
    """`value` without its lists of records, and those as tables, each with its path."""
    rest: dict[str, Any] = {}
    tables: list[tuple[_Path, str]] = []
    for key, each in value.items():
        if (table := _table(each)) is not None:
            tables.append(((*path, key), table))
        elif isinstance(each, dict):
            rest[key], below = _split(each, (*path, key))
            tables += below
        else:
            rest[key] = each
    return rest, tables


def _table(value: Value) -> str | None:
    """A list of records, or records by their keys, as lines; None where it is neither, or has too many holes."""
    keyed = isinstance(value, dict)
    rows = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if len(rows) < _MIN_ROWS or not all(isinstance(row, dict) and row for row in rows):
        return None
    flat = _flat(rows, ())
    if flat is None or (keyed and len(flat) * len({*chain(*flat)}) > _MOST_EMPTY_KEYED * sum(map(len, flat))):
        return None
    names = list(dict.fromkeys(path for row in flat for path in row))
    lines = [[_path(name) for name in names]]
    lines += [[_cell(row[name]) if name in row else "" for name in names] for row in flat]
    if isinstance(value, dict):
        lines = [[first, *line] for first, line in zip([_OF_KEYS, *map(_cell, value)], lines, strict=True)]
    return "\n".join(map("\t".join, lines))


def _flat(rows: Sequence[dict[str, Any]], path: _Path) -> list[dict[_Path, Value]] | None:
    """The records with paths for keys, going into what all of them hold; None where a table would be mostly holes."""
    keys = dict.fromkeys(key for row in rows for key in row)
    if len(keys) * len(rows) > _MOST_EMPTY * sum(map(len, rows)):
        return None
    found: list[dict[_Path, Value]] = [{} for _ in rows]
    for key in keys:
        cells: list[Any] = [row.get(key) for row in rows]
        inner = _flat(cells, (*path, key)) if all(isinstance(cell, dict) and cell for cell in cells) else None
        for number, row in enumerate(rows):
            if inner is not None:
                found[number].update(inner[number])
            elif key in row:
                found[number][(*path, key)] = row[key]
    return found


def _records(table: str) -> Value:
    """The records for which `_table` gave `table`."""
    head, *lines = table.split("\n")
    keyed = head.startswith(f"{_OF_KEYS}\t")
    names = [_parts(name) for name in head.split("\t")[keyed:]]
    rows: list[Value] = []
    keys: list[str] = []
    for line in lines:
        cells = line.split("\t")
        keys += [str(_read_cell(cells[0]))] if keyed else []
        if len(cells) != len(names) + keyed:
            raise InvalidValue(f"{line!r:.60} has {len(cells)} cells below {len(names) + keyed} names")
        row: dict[str, Any] = {}
        for path, cell in zip(names, cells[keyed:], strict=True):
            if cell:
                inner = row
                for key in path[:-1]:
                    inner = inner.setdefault(key, {})
                inner[path[-1]] = _read_cell(cell)
        rows.append(row)
    return dict(zip(keys, rows, strict=True)) if keyed else rows


def _read_cell(cell: str) -> Value:
    return read(cell) if _reads_as_json(cell) else cell


def _cell(value: Value) -> str:
    if not isinstance(value, str) or isinstance(value, Number):
        return minified(value)
    plain = value and value == value.strip() and not _reads_as_json(value) and not _HIDDEN.search(value)
    return value if plain else minified(value)


def _reads_as_json(cell: str) -> bool:
    return cell.startswith(('"', "{", "[")) or cell in _LITERALS or _NUMBER.fullmatch(cell) is not None


def _path(path: _Path) -> str:
    return ".".join(key if _PLAIN_KEY.fullmatch(key) else minified(key) for key in path)


def _parts(path: str) -> _Path:
    found = tuple(str(read(part)) if part.startswith('"') else part for part in _KEY.findall(path))
    if not found or _path(found) != path:
        raise InvalidValue(f"{path!r:.60} is no name of a column")
    return found


def _keys(value: Value) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _keys(each)


def _renamed(value: Value, names: Mapping[str, Any]) -> Value:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(each, names) for key, each in value.items()}
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value
