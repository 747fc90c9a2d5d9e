"""From the lines of a log to calls, one line apart from all others, so that several processes can share the work."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields as fields_of
from multiprocessing import get_context
from operator import attrgetter
from typing import Any

from labkit.logs import fields
from labkit.logs.call import Call
from labkit.logs.lines import is_call, spans_of
from labkit.request import LabError, Usage

Line = tuple[int, bytes]
"""A line and its number, from 1."""
Entry = tuple[int, fields.Read | str | None]
"""A line's number, and the call that it tells of, or why it is none; None for a span that is no call to a model."""
Mapped = Sequence[tuple[str, str]]
"""Under which name a field is known, and under which the log has it."""
_BATCH = 1 << 21
"""Bytes of lines that go to a process at once."""
_CALL = [one.name for one in fields_of(Call)]
_PARTS = attrgetter(*_CALL)
_USAGE = _CALL.index("usage")
_COUNTS = attrgetter("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def read_record(line: int, record: Mapping[str, Any], mapped: Mapped = ()) -> fields.Read | str | None:
    """The call that a record tells of, or why it is none; None for a span that is no call to a model."""
    if not is_call(record):
        return None
    if mapped:
        record = {**record, **{name: _dug(record, column) for name, column in mapped}}
    try:
        return fields.read(line, record)
    except (LabError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        return str(error) if isinstance(error, LabError | ValueError) else type(error).__name__


def read_lines(lines: Iterable[Line], mapped: Mapped = ()) -> Iterator[Entry]:
    """What each line of JSON tells; a line of OTLP tells of many spans, and an empty one of nothing."""
    for number, line in lines:
        if not line.strip():
            continue
        row = json_of(line)
        if isinstance(row, str):
            yield number, row
        elif isinstance(row, dict):
            for one in spans_of(row):
                yield number, read_record(number, one, mapped)
        else:
            yield number, f"a JSON {type(row).__name__}, not an object"


def read_in_parallel(lines: Iterable[Line], mapped: Mapped, processes: int) -> Iterator[Entry]:
    """The same in the same order, by so many processes beside this one, which has a few batches of lines in memory."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        waiting: deque[Future[list[tuple[Any, ...]]]] = deque()
        try:
            for batch in _batches(lines):
                waiting.append(pool.submit(_packed, batch, mapped))
                if len(waiting) > 2 * processes:
                    yield from map(_unpacked, waiting.popleft().result())
            while waiting:
                yield from map(_unpacked, waiting.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)


def json_of(line: bytes) -> Any:
    """What a line of JSON holds; a text, which no record is, says why it is none."""
    try:
        found = json.loads(line.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        return f"no JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError):
        return "no JSON: nested too deep, or a number too long"
    return [found] if isinstance(found, str) else found


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch, size = [], 0
    for line in lines:
        batch.append(line)
        size += len(line[1])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _packed(lines: list[Line], mapped: Mapped) -> list[tuple[Any, ...]]:
    """What `read_lines` gives, as plain tuples: dataclasses take four times as long from process to process."""
    return [(number, _plain(told) if isinstance(told, fields.Read) else told) for number, told in read_lines(lines, mapped)]


def _plain(read: fields.Read) -> tuple[Any, ...]:
    parts = list(_PARTS(read.call))
    usage = parts[_USAGE]
    parts[_USAGE] = None if usage is None else _COUNTS(usage)
    return (parts, read.id, read.no_zone, read.bare_duration, read.bare_ttft)


def _unpacked(entry: tuple[Any, ...]) -> Entry:
    number, told = entry
    if not isinstance(told, tuple):
        return number, told
    parts, *rest = told
    if parts[_USAGE] is not None:
        parts[_USAGE] = Usage(*parts[_USAGE])
    return number, fields.Read(Call(*parts), *rest)


def _dug(record: Mapping[str, Any], column: str) -> Any:
    """The value under `column`, which may be a path of names with points between them; None where there is none."""
    if column in record:
        return record[column]
    found: Any = record
    for name in column.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
