"""What a learner committed and passed: an append-only journal of JSON lines, one file per user.

Each entry is one `write` of one line to a file opened with `O_APPEND`. That is atomic enough for several notebooks to share
the journal. A crash can at worst leave one torn last line, which reading skips. Nothing is ever rewritten: a changed mind is
a new line.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

JOURNAL = "workbook.jsonl"
Entry = Mapping[str, Any]


class Journal:
    """The entries of one learner, kept in the file `path`, or in memory when `path` is None (solved runs, tests)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory: list[Entry] = []

    def append(self, kind: str, item: str, **fields: Any) -> Entry:
        """Record one event of `kind` for `item`, at the current time, and return the entry.

        `item` is the id of a prediction, exercise, question or claim, or the name of a line of the bill. `fields` are kept
        with the event. Raises `OSError`, which names the file and the fix, when the file cannot be written (earlier entries
        stay), and `ValueError` when a field of an entry for a file is NaN or infinite.
        """
        entry: Entry = {"at": time.time(), "kind": kind, "item": item, **fields}
        if self._path is None:
            self._memory.append(entry)
            return entry
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            torn = _ends_torn(self._path)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot record your answer in {self._path} ({error.strerror}); free space or set LABKIT_STATE"
            ) from error
        return entry

    def entries(self, kind: str | None = None, item: str | None = None) -> Iterator[Entry]:
        """Entries in the order they were made, optionally of one kind and one item."""
        for entry in self._all():
            if (kind is None or entry["kind"] == kind) and (item is None or entry["item"] == item):
                yield entry

    def last(self, kind: str, item: str) -> Entry | None:
        """The entry of that kind for that item that was written last, or None. The clock may stand still or be set back."""
        return next(iter(deque(self.entries(kind, item), maxlen=1)), None)

    def _all(self) -> Iterator[Entry]:
        if self._path is None:
            yield from self._memory
            return
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a crash tore this line; the lines around it are whole
            if isinstance(entry, dict) and "kind" in entry and "item" in entry:
                yield entry


def _ends_torn(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
