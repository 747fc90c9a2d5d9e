"""Real serving traces as workloads: when requests came and how long they were. The traces hold no text of the requests.

The files are public (Azure's of 2023 and 2024, Mooncake's of FAST'25, Alibaba's Bailian of 2025) and are not part of this
repository: set LABKIT_TRACES to a folder that holds them. Azure's are CSV with a column of dates. The others are JSON with
one request per line and the same field names; Mooncake's timestamps are in milliseconds, and Bailian's, whose rows also name
the chat, in seconds.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from labkit.load.arrivals import from_times
from labkit.load.prompts import MakeRequest
from labkit.request import InvalidValue, Request


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace: seconds since the first request, tokens in and out, and block hashes if the trace has them."""

    at: float
    input_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()


def traces_dir() -> Path:
    """The folder that the environment variable LABKIT_TRACES names; raises `InvalidValue` where it names none."""
    folder = os.environ.get("LABKIT_TRACES", "")
    if not folder or not Path(folder).is_dir():
        raise InvalidValue(f"LABKIT_TRACES is {folder!r}; set it to a folder that holds serving traces")
    return Path(folder)


def read_trace(path: Path, unit: Literal["s", "ms"] | None = None) -> tuple[TraceRequest, ...]:
    """Read a trace of Azure's (CSV), Mooncake's or Bailian's (JSON lines), compressed by gzip or not.

    Times count from the trace's first request. The format is told from the file's content, not its name. `unit` is that of
    the timestamps in JSON lines; None recognises Mooncake's (whole milliseconds) and Bailian's (seconds, in rows that name a
    chat). Raises `InvalidValue` for a file that cannot be read or holds no requests, for missing columns, and for a bad row
    (out of order, not a number, no tokens), which the message names.
    """
    if unit not in (None, "s", "ms"):
        raise InvalidValue(f"unit is {unit!r}; use 's' or 'ms'")
    try:
        packed = Path(path).read_bytes()
        text = _decoded(gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise InvalidValue(f"cannot read a trace from {path}: {error}") from error
    try:
        rows = list(_json_lines(text, unit) if text.lstrip().startswith("{") else _azure(text))
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error}") from error
    if not rows:
        raise InvalidValue(f"{path} holds no requests")
    first = before = rows[0].at
    found = []
    for number, row in enumerate(rows, 1):
        if not math.isfinite(row.at):
            raise InvalidValue(f"{path}, request {number}: at {row.at} s, which is no time")
        if row.at < before:
            raise InvalidValue(f"{path}, request {number}: at {row.at} s, before the one ahead of it ({before} s); sort it")
        if row.input_tokens < 1 or row.output_tokens < 0:
            raise InvalidValue(f"{path}, request {number}: {row.input_tokens} tokens in, {row.output_tokens} out")
        before = row.at
        found.append(replace(row, at=row.at - first))
    return tuple(found)


def scaled(
    trace: Sequence[TraceRequest],
    *,
    rate: float,
    max_input: int,
    max_output: int,
    min_input: int = 1,
    length_factor: float = 1.0,
) -> tuple[TraceRequest, ...]:
    """`trace` for a smaller engine: its arrivals at a mean `rate` per second, its lengths times `length_factor`.

    Lengths are then cut to `max_input` and `max_output` tokens. Prompts stay at least `min_input` tokens long (a chat
    template alone takes a few), answers at least 1. Raises `InvalidValue` for numbers that are not above 0, and for a
    `min_input` above `max_input`.
    """
    if not (length_factor > 0 and math.isfinite(length_factor)) or max_input < 1 or max_output < 1:
        raise InvalidValue(f"length_factor {length_factor}, max_input {max_input}, max_output {max_output}: all above 0")

    if not 1 <= min_input <= max_input:
        raise InvalidValue(f"min_input is {min_input}; choose 1 to max_input ({max_input})")

    def length(tokens: int, least: int, most: int) -> int:
        return max(least, min(most, round(tokens * length_factor)))

    times = from_times([row.at for row in trace], rate)
    return tuple(
        replace(
            row,
            at=at,
            input_tokens=length(row.input_tokens, min_input, max_input),
            output_tokens=length(row.output_tokens, 1, max_output),
        )
        for row, at in zip(trace, times, strict=True)
    )


def as_load(trace: Sequence[TraceRequest], make: MakeRequest) -> Iterator[tuple[float, Request]]:
    """`trace` as the load for `open_loop`: (seconds, request) pairs, with requests made by `make` in these lengths."""
    return ((row.at, make(row.input_tokens, row.output_tokens)) for row in trace)


def _decoded(content: bytes) -> str:
    """The text of a file; a byte order mark, which spreadsheets write, is recognised."""
    return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_JSON = ("timestamp", "input_length", "output_length")
_CHAT = ("chat_id", "parent_chat_id", "turn")


def _azure(text: str) -> Iterator[TraceRequest]:
    lines = io.StringIO(text.lstrip(), newline=None)
    header = text.lstrip().partition("\n")[0]
    # Spreadsheets separate columns by semicolons in countries where the comma is the decimal mark.
    reader = csv.DictReader(lines, delimiter=next((mark for mark in ",;\t" if mark in header), ","), skipinitialspace=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        if reader.fieldnames:
            _check_columns("column", _AZURE, reader.fieldnames)
        for number, row in enumerate(reader, 1):
            try:
                yield TraceRequest(_seconds(row["TIMESTAMP"]), _whole(row["ContextTokens"]), _whole(row["GeneratedTokens"]))
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                raise _bad_row(number, row, error) from error
    except csv.Error as error:
        raise InvalidValue(f"this is no table of comma-separated values: {error}") from error


_TIME = re.compile(r"(?P<whole>.*\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d+))?\s*(?P<zone>[zZ]|UTC|GMT|[+-][\d:]+)?")


def _seconds(written: str) -> float:
    """Seconds from `_EPOCH` to a date with any ISO 8601 zone; a date without a zone is taken as UTC."""
    found = _TIME.fullmatch(written.strip())
    if found is None:
        raise ValueError(f"{written!r} is no date and time such as 2024-05-10 00:00:00.009930+00:00")
    zone = found["zone"] or ""
    at = datetime.fromisoformat(found["whole"] + (zone if zone.startswith(("+", "-")) else "+00:00"))
    # The files of 2023 have seven digits of a second, and Python's datetime takes only six, so the fraction is added here.
    return (at.astimezone(UTC) - _EPOCH).total_seconds() + float(f"0.{found['fraction'] or 0}")


_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # near the dates of the traces, so that a float keeps all digits of the fraction


def _json_lines(text: str, unit: str | None) -> Iterator[TraceRequest]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(filter(str.strip, re.split(r"[\r\n]+", text)), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad_row(number, line, error) from error
        if not isinstance(row, dict):
            raise _bad_row(number, line, TypeError("a row must be an object"))
        _check_columns(f"field in request {number}:", _JSON, row)
        rows.append(row)
    scale = 1 if (unit or _unit(rows)) == "s" else 1000
    for number, row in enumerate(rows, 1):
        try:
            hashes = tuple(int(id) for id in row.get("hash_ids") or ())
            yield TraceRequest(row["timestamp"] / scale, _whole(row["input_length"]), _whole(row["output_length"]), hashes)
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad_row(number, row, error) from error


def _unit(rows: Sequence[Mapping[str, Any]]) -> str:
    """The unit of the timestamps, as far as the rows tell; raises `InvalidValue` where they do not."""
    if any(name in row for row in rows for name in _CHAT):
        return "s"
    for number, row in enumerate(rows, 1):
        at = row["timestamp"]
        if isinstance(at, float) and math.isfinite(at) and at != int(at):
            raise InvalidValue(
                f"request {number} is at {at}: Mooncake's traces count whole milliseconds, and a row of Bailian's, which "
                f"count seconds, has one of {', '.join(_CHAT)}; say which it is, as read_trace(path, unit='s')"
            )
    return "ms"


def _whole(given: object) -> int:
    """A number of tokens as an int; spreadsheets and data frames may write it as 374.0."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"{given!r} is no number of tokens")
    number = given if isinstance(given, int) else float(given)
    if number != int(number):
        raise ValueError(f"{given!r} is no whole number of tokens")
    return int(number)


def _check_columns(what: str, wanted: Sequence[str], there: Iterable[str]) -> None:
    names = list(there)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidValue(
            f"the trace has no {what} {', '.join(missing)}; it has {', '.join(map(str, names))[:200]}. Azure's traces have "
            f"{', '.join(_AZURE)} (CSV), Mooncake's and Bailian's {', '.join(_JSON)} (JSON lines)"
        )


def _bad_row(number: int, row: Any, error: Exception) -> InvalidValue:
    return InvalidValue(f"request {number} of the trace cannot be read: {error!r} in {str(row)[:120]}")
