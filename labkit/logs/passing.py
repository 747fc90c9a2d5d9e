"""`LogStream`: the calls of a log one after another, in the order of the file, for logs that no memory holds.

`read_log` knows the whole log before it gives its first call. This reader gives each call once, keeps none, and counts what
it leaves out. It reads the same formats, since the fields of a record are found by the same code.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Hashable, Iterator, Mapping, MutableSet
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, cast

import ijson

from labkit.logs import fields
from labkit.logs.call import BadLine, Call, counted
from labkit.logs.lines import LISTS, Record, spans_of
from labkit.logs.names import WANTED
from labkit.logs.parsing import Entry, json_of, read_in_parallel, read_lines, read_record
from labkit.logs.reading import is_trace, ledger_calls, read_log
from labkit.request import InvalidValue

SHOWN = 20
"""So many lines of each kind are named; all are counted."""
LONGEST = 64 << 20
"""Bytes; a longer line is told of and left out, since it would have to be held in memory whole."""
WATCHED = 5_000_000
"""So many calls are remembered, by 8 bytes each, to find those that a log tells of twice."""
_SQLITE = b"SQLite format 3\0"
_GZIP = b"\x1f\x8b"
MAPPED: Mapping[str, str] = {
    "time": "timestamp", "end": "end_time", "model": "model", "input": "prompt_tokens", "output": "completion_tokens",
    "cached": "cached_tokens", "written": "cache_write_tokens", "reasoning": "reasoning_tokens", "status": "status",
    "finish": "finish_reason", "attempt": "attempt", "request": "idempotency_key", "id": "request_id", "cost": "cost",
    "currency": "currency", "tenant": "tenant", "user": "user", "session": "session_id", "feature": "feature",
    "prompt": "messages", "prompt_key": "prompt_hash",
}  # fmt: skip
"""What a column of one's own can be mapped to, with the name that the reader knows it by."""


@dataclass(slots=True)
class LeftOut:
    """Lines that count for nothing: how many, and the first of them."""

    count: int = 0
    first: list[BadLine] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        """One more line."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(BadLine(line, why))


class LogStream:
    """The calls of the log at `path`, to be gone through once.

    `mapped` says under which names a log keeps what it tells: {"model": "engine"} takes the model from the column "engine",
    and {"model": "meta.engine"} from within an object; the keys are those of `MAPPED`. `seen` holds what marks the records
    that came already: give several files one set to find what two of them tell of. `processes` read lines of JSON beside
    this one, which pays from some 100,000 lines on; 1 starts none.

    After the last call, `kind` says what the file was read as, `bad` which lines could not be read, `copies` which told of a
    call again (the same id, attempt and tokens: a gateway's log beside the client's) and are left out, `alike` which say the
    same as one before but have no id to tell by, so that they count, `others` how many spans are no calls to a model, and
    `no_zone` how many dates had no time zone and were taken as UTC. The first `WATCHED` calls are remembered, to know them
    again. Raises `InvalidValue` for a key of
    `mapped` that does not exist, and while iterating for a file that cannot be read or holds no call.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mapped: Mapping[str, str] | None = None,
        seen: MutableSet[int] | None = None,
        processes: int = 1,
    ) -> None:
        self.path = Path(path).expanduser()
        self.kind = ""
        self.bad, self.copies, self.alike = LeftOut(), LeftOut(), LeftOut()
        self.calls = self.others = self.no_zone = 0
        unknown = set(mapped or {}) - set(MAPPED)
        if unknown:
            raise InvalidValue(f"nothing is mapped to {', '.join(sorted(unknown))}; use {', '.join(MAPPED)}")
        self._mapped = [(MAPPED[name], column) for name, column in (mapped or {}).items()]
        self._seen: MutableSet[int] = set() if seen is None else seen
        self._processes = processes

    def __iter__(self) -> Iterator[Call]:
        if self.path.is_dir():
            raise InvalidValue(f"{self.path} is a folder; name the log files in it")
        try:
            with self.path.open("rb") as raw:
                begins = raw.read(16)
        except OSError as error:
            raise InvalidValue(f"cannot read the log {self.path}: {error.strerror or error}") from error
        if begins.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InvalidValue(f"{self.path.name} is UTF-16; turn it to UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE > NEW")
        if begins.startswith(_SQLITE):
            self.kind = "a ledger"
            for call in ledger_calls(self.path):
                self.calls += 1
                yield call
        else:
            with gzip.open(self.path) if begins.startswith(_GZIP) else self.path.open("rb") as file:
                yield from self._streamed(cast(IO[bytes], file))
        if not self.calls and not self.copies.count:
            first = f" (line {self.bad.first[0].line}: {self.bad.first[0].why})" if self.bad.first else ""
            raise InvalidValue(
                f"{self.path.name} was read as {self.kind or 'text'} and holds no call in "
                f"{counted(self.bad.count, 'line')}{first}. A call needs {WANTED}; name your own columns by --map"
            )

    def _whole(self) -> Iterator[Call]:
        """A serving trace, which has a reader of its own, that holds the whole file in memory."""
        log = read_log(self.path)
        self.kind = log.kind
        for call in log.calls:
            self.calls += 1
            yield call

    def _streamed(self, file: IO[bytes]) -> Iterator[Call]:
        lines = self._lines(file)
        try:
            number, line = next((n, text) for n, text in lines if text.strip())
        except StopIteration:
            raise InvalidValue(f"the log {self.path} is empty, or cut off before its first line") from None
        first = line.strip().removeprefix(b"\xef\xbb\xbf")
        row = json_of(first)
        if isinstance(row, dict) and not (len(row) <= 3 and any(isinstance(row.get(name), list) for name in LISTS)):
            self.kind = "spans of OTLP" if "resourceSpans" in row else "JSON lines"
            if is_trace(row):
                yield from self._whole()
                return
            every = chain([(number, first)], lines)
            if self._processes > 1:
                entries = read_in_parallel(every, self._mapped, self._processes)
            else:
                entries = read_lines(every, self._mapped)
        elif first[:1] in (b"[", b"{"):
            self.kind = "a JSON list"
            entries = self._each(self._json_list())
        else:
            names = first.decode("utf-8", "surrogateescape")
            self.kind = "a table"
            entries = self._each(self._table(names, number, lines))
            if is_trace(dict.fromkeys(name.strip() for name in names.split(","))):
                yield from self._whole()
                return
        for place, told in entries:
            if told is None:
                self.others += 1
            elif isinstance(told, str):
                self.bad.add(place, told)
            elif (call := self._new(place, told)) is not None:
                self.calls += 1
                yield call

    def _each(self, found: Iterator[Record]) -> Iterator[Entry]:
        return ((number, read_record(number, record, self._mapped)) for number, record in found)

    def _new(self, line: int, one: fields.Read) -> Call | None:
        """The call, None for one that was told of before."""
        self.no_zone += one.no_zone
        call, usage = one.call, one.call.usage
        counts = usage and (
            usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
        )  # fmt: skip
        told: tuple[Hashable, ...]
        if one.id:
            told = (one.id, call.attempt, counts or (call.at, call.status))
        elif call.at is not None:
            told = (call.at, call.model, counts, call.user, call.feature, call.session, call.duration, call.turns)
        else:
            return call
        mark = hash(told)
        if mark not in self._seen:
            if len(self._seen) < WATCHED:
                self._seen.add(mark)
            return call
        if one.id:
            self.copies.add(line, "the same id, attempt and tokens as a record before it")
            return None
        self.alike.add(line, "the same time, model, tokens, caller and prompt as a record before it")
        return call

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """(number, line); a line beyond `LONGEST`, and the place where a compressed file was cut off, are bad lines."""
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(LONGEST)
                if len(line) == LONGEST and not line.endswith(b"\n"):
                    size = len(line)
                    while part := file.readline(LONGEST):
                        size += len(part)
                        if part.endswith(b"\n"):
                            break
                    self.bad.add(
                        number, f"a line of {size / 1e6:,.0f} MB; the longest that is read has {LONGEST / 1e6:,.0f}"
                    )
                    continue
            except (EOFError, zlib.error, OSError):
                self.bad.add(number, "the compressed file ends here, before its end: it was cut off")
                return
            if not line:
                return
            yield number, line

    def _json_list(self) -> Iterator[Record]:
        """The records of one JSON list, or of an object around one. Numbers count records, from 1, not lines."""
        number = 0
        with self.path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        for prefix in ("item", *(f"{name}.item" for name in LISTS), ""):
            with gzip.open(self.path) if packed else self.path.open("rb") as file:
                try:
                    for row in ijson.items(file, prefix, use_float=True):
                        if isinstance(row, list) and not prefix:
                            break
                        number += 1
                        if isinstance(row, dict):
                            for one in spans_of(row):
                                yield number, one
                        else:
                            self.bad.add(number, f"a JSON {type(row).__name__}, not an object")
                except (ijson.JSONError, EOFError, zlib.error, OSError, UnicodeDecodeError):
                    self.bad.add(number + 1, "no JSON from here on: the list is broken, or was cut off")
                    return
            if number:
                return

    def _table(self, header: str, begins: int, lines: Iterator[tuple[int, bytes]]) -> Iterator[Record]:
        delimiter = next((mark for mark in ("\t", ";", ",", "|") if mark in header), ",")
        texts = (line.decode("utf-8", "surrogateescape").replace("\0", "") for _, line in lines)
        reader = csv.reader(chain([header + "\n"], texts), delimiter=delimiter, skipinitialspace=True)
        limit = csv.field_size_limit(LONGEST)
        names: list[str] = []
        try:
            for row in reader:
                number = reader.line_num + begins - 1
                if not any(cell.strip() for cell in row):
                    continue
                if not names:
                    names = [name.strip() for name in row]
                elif len(row) != len(names):
                    self.bad.add(number, f"{len(row)} columns, and the header has {len(names)}")
                else:
                    yield number, dict(zip(names, row, strict=True))
        except csv.Error as error:
            self.bad.add(reader.line_num + begins - 1, f"no row of a table from here on: {error}")
        finally:
            csv.field_size_limit(limit)
