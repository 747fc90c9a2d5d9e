"""`read_log`: any log of calls as a `Log`. Nothing is dropped without being counted and named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from labkit.ledger import Ledger, Row
from labkit.load import read_trace
from labkit.logs import fields
from labkit.logs.call import BadLine, Call, Log, counted
from labkit.logs.lines import Record, read_text, records
from labkit.logs.moments import counts_from_zero
from labkit.logs.names import WANTED
from labkit.request import InvalidValue, LabError

_SQLITE = b"SQLite format 3\0"
_AZURE = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
_TRACE = {"timestamp", "input_length", "output_length"}
_SLOW = 300  # a median call longer than this many "seconds" was counted in milliseconds


def read_log(path: str | os.PathLike[str]) -> Log:
    """The calls of the log at `path`; its format is told from its content.

    Read are a ledger of this lab, the traces of `labkit.load.read_trace`, and JSON lines, JSON lists and tables (CSV) whose
    fields have the names of OpenAI's bodies, LiteLLM's spend log, Langfuse's observations, OpenTelemetry or BurstGPT;
    compressed by gzip or not. The file is read whole. A line that is no call is in `Log.bad`, with its number and reason.
    Raises `InvalidValue` where no line is one, naming the fields it looked for, and for what is no file. No message repeats
    what a line holds.
    """
    file = Path(path).expanduser()
    if _begins(file).startswith(_SQLITE):
        return _ledger(file)
    text, cut = read_text(file)
    kind, found, bad = records(text)
    if found and is_trace(found[0][1]):
        return _trace(file, found)
    calls, more, duplicates, notes = _calls(found)
    bad = sorted([*bad, *more, *([cut] if cut else [])], key=lambda one: one.line)
    if not calls:
        first = f" (line {bad[0].line}: {bad[0].why})" if bad else ""
        raise InvalidValue(
            f"{file.name} was read as {kind} and holds no call in {counted(len(bad), 'line')}{first}. A call needs {WANTED}"
        )
    return Log(file.name, kind, _by_time(calls), tuple(bad), tuple(duplicates), tuple(notes))


def is_trace(record: Mapping[str, Any]) -> bool:
    """Whether a record, or the header of a table, is one of the serving traces that `labkit.load.read_trace` reads."""
    return record.keys() >= _TRACE or record.keys() >= _AZURE


def _begins(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(len(_SQLITE))
    except OSError:
        return b""  # said by what reads the whole


def _calls(found: Iterable[Record]) -> tuple[list[Call], list[BadLine], list[int], list[str]]:
    read: list[fields.Read] = []
    bad: list[BadLine] = []
    duplicates: list[int] = []
    seen: dict[tuple[Any, ...], None] = {}
    for line, record in found:
        try:
            one = fields.read(line, record)
        except (LabError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            bad.append(BadLine(line, str(error) if isinstance(error, LabError | ValueError) else type(error).__name__))
            continue
        key = (one.id, one.call.at, one.call.usage, one.call.attempt)
        if one.id and key in seen:
            duplicates.append(line)
            continue
        seen[key] = None
        read.append(one)
    settled, notes = _settled(read)
    return settled, bad, duplicates, notes


def _settled(read: Sequence[fields.Read]) -> tuple[list[Call], list[str]]:
    """The calls, with what only the whole log tells: units of bare numbers, and whose zero the times count from."""
    notes = []
    if no_zone := sum(one.no_zone for one in read):
        notes.append(f"{counted(no_zone, 'date')} without a time zone, taken as UTC")
    long, long_note = _unit("duration", [one.bare_duration for one in read])
    short, short_note = (long, "") if long_note else _unit("time to first token", [one.bare_ttft for one in read])
    notes += [note for note in (long_note, short_note) if note]
    calls = [
        replace(
            one.call,
            duration=one.call.duration if one.bare_duration is None else one.bare_duration * long,
            ttft=one.call.ttft if one.bare_ttft is None else one.bare_ttft * short,
        )
        if one.bare_duration is not None or one.bare_ttft is not None
        else one.call
        for one in read
    ]
    own = sum(call.at is not None and counts_from_zero(call.at) for call in calls)
    dated = sum(call.at is not None for call in calls) - own
    if own and dated:
        notes.append(f"{counted(own, 'time')} from the log's own zero left out, beside {counted(dated, 'date')}")
        calls = [replace(c, at=None) if c.at is not None and counts_from_zero(c.at) else c for c in calls]
    return calls, notes


def _unit(what: str, given: Iterable[float | None]) -> tuple[float, str]:
    numbers = [number for number in given if number is not None]
    if numbers and median(numbers) > _SLOW:
        return 1e-3, f"half of the numbers for {what} are above {_SLOW}, so they were taken as milliseconds"
    return 1.0, ""


def _by_time(calls: Iterable[Call]) -> tuple[Call, ...]:
    """By time; calls without one stay behind the call before them in the file."""
    placed, last = [], float("-inf")
    for call in calls:
        last = last if call.at is None else call.at
        placed.append((last, call.line, call))
    return tuple(call for _, _, call in sorted(placed, key=lambda one: one[:2]))


def _trace(file: Path, found: Sequence[Record]) -> Log:
    from labkit.request import Usage

    rows = read_trace(file)
    calls = [
        Call(
            found[i][0] if i < len(found) else i + 1,
            row.at,
            usage=Usage(row.input_tokens, row.output_tokens),
            block_hashes=row.block_hashes,
            session=str(found[i][1].get("chat_id", "")) if i < len(found) else "",
        )
        for i, row in enumerate(rows)
    ]
    return Log(file.name, "a serving trace", tuple(calls))


def _ledger(file: Path) -> Log:
    return Log(file.name, "a ledger", _by_time(ledger_calls(file)))


def ledger_calls(file: Path) -> Iterator[Call]:
    """The calls of a ledger one by one, in the order of their booking. Raises `InvalidValue` where there are none."""
    number = 0
    with Ledger(file) as ledger:
        for number, row in enumerate(ledger.walk(), 1):
            yield _from_row(number, row)
    if not number:
        raise InvalidValue(f"the ledger {file.name} has no rows yet; run the cells that book calls in it first")


def _from_row(line: int, row: Row) -> Call:
    timing = row.timing
    return Call(
        line,
        row.started_unix if row.started_unix is not None else row.sent,
        row.response_model or row.request_model,
        row.usage,
        None if timing is None else timing.ttft,
        None if timing is None else timing.e2e,
        row.outcome,
        next(iter(row.finish_reasons), ""),
        row.attempt,
        row.idempotency_key,
        row.shadow,
        row.cost,
        row.tenant,
        row.user,
        row.workflow,
        row.feature,
        prompt_version=row.prompt_version,
        currency=row.currency,
    )
