"""What a client tells its user while an engine starts: each step, how long it has taken, how long it took last time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import labkit

EVERY_S = 5.0
"""Seconds of silence after which a step that still runs is told again."""
IMPORTING = "importing vLLM"
"""The step that is the same for every engine."""
_KEPT = 200


def kept_folder() -> Path:
    """Where the starts of this clone leave notes for the next: `LABKIT_STATE`, else `.labkit/` in the clone. Not created."""
    named = os.environ.get("LABKIT_STATE")
    state = Path(named).expanduser() if named else Path(labkit.__file__).parents[1] / ".labkit"
    return state / "engines"


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How many seconds each step took when it was last done, kept in the file `path`.

    Steps of different engines are kept apart by `engine`, a text that names the model and its arguments. A file that cannot
    be read or written is as good as none: nothing is known, or nothing is kept.
    """

    path: Path
    engine: str = ""

    def last(self, step: str) -> float | None:
        """Seconds of the last time; None where it is not known."""
        seconds = self._read().get(self._name(step))
        return seconds if isinstance(seconds, float) else None

    def keep(self, step: str, seconds: float) -> None:
        """Note how long `step` took. Only the newest few hundred are kept."""
        times = self._read()
        times.pop(self._name(step), None)
        times[self._name(step)] = float(seconds)
        newest = dict(list(times.items())[-_KEPT:])
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.path.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(newest, indent=0), encoding="utf-8")
            unfinished.replace(self.path)

    def _name(self, step: str) -> str:
        return step if step == IMPORTING else f"{step} {self.engine}".strip()

    def _read(self) -> dict[str, object]:
        try:
            times = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return times if isinstance(times, dict) else {}


class StartReport:
    """Calls `say` with each step as it begins, and with its time so far whenever `EVERY_S` seconds have passed in silence.

    `clock` gives seconds; the caller calls `tick` at least once a second or so.
    """

    def __init__(self, say: Callable[[str], None], times: StepTimes, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._times = times
        self._clock = clock
        self._step = ""
        self._began = 0.0
        self._said = 0.0
        self._note = ""

    def begin(self, step: str, note: str = "", ago_s: float | None = None) -> None:
        """The step that is being waited for now; the one before it is over. Called again for the same step, it goes on.

        `ago_s` is for how many seconds it has been going on, where that is longer than this client has waited for it. `note`
        is told with the time.
        """
        now = self._clock()
        if step != self._step:
            self.end()
            self._step, self._began, self._said = step, now, now
            self._say(step)
        if ago_s is not None:
            self._began = min(self._began, now - ago_s)
        self._note = note

    def tick(self) -> None:
        """Say how long the step has taken, if it is time to."""
        now = self._clock()
        if not self._step or now - self._said < EVERY_S:
            return
        self._said = now
        so_far, last = now - self._began, self._times.last(self._step)
        if last is None:
            text = f"{so_far:.0f} s"
        elif so_far <= last:
            text = f"{so_far:.0f} s of about {last:.0f} s"
        else:
            text = f"{so_far:.0f} s, last time {last:.0f} s"
        self._say(f"{self._step}: {text}{', ' if self._note else ''}{self._note}")

    def end(self) -> None:
        """The step is over: its time is kept for the next start."""
        if self._step:
            self._times.keep(self._step, self._clock() - self._began)
        self._step = ""
