"""Reads an engine's log: the steps of its start, and why it ended."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL = 15
_CAUSES = 5
_LONGEST = 2000  # characters of a line that is shown
_EXCEPTION = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception): \S")
# A text in the log, and the step to report to the clients that wait.
_PHASES = (
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "reserving the KV cache"),
    ("KV cache size:", "warming up"),
    ("Starting vLLM server", "starting the server"),
)


class EngineLog:
    """The output of one engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._phases = 0

    def new_phases(self) -> list[str]:
        """The steps of the start-up that have appeared in the log since the last call."""
        text, told = self._text(), []
        while self._phases < len(_PHASES) and _PHASES[self._phases][0] in text:
            told.append(_PHASES[self._phases][1])
            self._phases += 1
        return told

    def tail(self) -> list[str]:
        """The last lines, with the exceptions logged before them in front: the cause is often a hundred lines up."""
        lines = [line for line in self._text().splitlines() if line.strip()]
        causes = [line for line in lines[:-_TAIL] if _EXCEPTION.search(line)]
        return [line[:_LONGEST] for line in (*dict.fromkeys(causes[-_CAUSES:]), *lines[-_TAIL:])]

    def _text(self) -> str:
        return self._path.read_text(errors="replace") if self._path.exists() else ""
