"""Real serving traces as workloads: when requests came, and how long they were. Nothing of their text is known.

The files are public (Azure's of 2023, Mooncake's of FAST'25) and are not part of this repository: point LABKIT_TRACES at a
folder that holds them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit.load.arrivals import from_times
from labkit.load.prompts import MakeRequest
from labkit.request import Request
from labkit.request.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace: seconds since the first one, tokens in and out, and block hashes where the trace has them."""

    at: float
    input_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()


def traces_dir() -> Path:
    """The folder that LABKIT_TRACES names; raises `InvalidRequest` when it names none."""
    folder = os.environ.get("LABKIT_TRACES", "")
    if not folder or not Path(folder).is_dir():
        raise InvalidRequest(f"LABKIT_TRACES is {folder!r}; set it to a folder that holds serving traces")
    return Path(folder)


def read_trace(path: Path) -> tuple[TraceRequest, ...]:
    """Read an Azure trace (.csv, .csv.gz) or a Mooncake trace (.jsonl, .jsonl.gz), times from its first request.

    Raises `InvalidRequest` naming the row and what is wrong with it: out of order, not a number, no tokens.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read a trace from {path}: {error}") from error
    rows = list(_azure(text) if ".csv" in path.suffixes else _mooncake(text))
    if not rows:
        raise InvalidRequest(f"{path} holds no requests")
    first = before = rows[0].at
    found = []
    for number, row in enumerate(rows, 1):
        if row.at < before:
            raise InvalidRequest(
                f"{path}, request {number}: at {row.at} s, before the one ahead of it ({before} s); sort it"
            )
        if row.input_tokens < 1 or row.output_tokens < 0:
            raise InvalidRequest(f"{path}, request {number}: {row.input_tokens} tokens in, {row.output_tokens} out")
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

    What is still longer than `max_input` or `max_output` is cut there; prompts stay at least `min_input` long (a chat
    template alone takes a few tokens), answers at least 1.
    """
    if not (length_factor > 0 and math.isfinite(length_factor)) or max_input < 1 or max_output < 1:
        raise InvalidRequest(f"length_factor {length_factor}, max_input {max_input}, max_output {max_output}: all above 0")

    if not 1 <= min_input <= max_input:
        raise InvalidRequest(f"min_input is {min_input}; choose 1 to max_input ({max_input})")

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
    """`trace` as what `open_loop` takes: times, and requests of these lengths."""
    return ((row.at, make(row.input_tokens, row.output_tokens)) for row in trace)


def _azure(text: str) -> Iterator[TraceRequest]:
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 1):
        try:
            # Seven digits of a second, of which Python's datetime takes six.
            whole, _, fraction = row["TIMESTAMP"].partition(".")
            at = datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")
            yield TraceRequest(at, int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        except (KeyError, ValueError, TypeError) as error:
            raise _bad_row(number, row, error) from error


def _mooncake(text: str) -> Iterator[TraceRequest]:
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            row = json.loads(line)
            hashes = tuple(int(id) for id in row.get("hash_ids", ()))
            yield TraceRequest(row["timestamp"] / 1000, int(row["input_length"]), int(row["output_length"]), hashes)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _bad_row(number, line, error) from error


def _bad_row(number: int, row: Any, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"request {number} of the trace cannot be read: {error!r} in {str(row)[:120]}")
