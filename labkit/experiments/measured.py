"""Recordings of experiments. A file starts with a header that holds the provenance, and then has one row per line.

There is one file for each device, model, experiment and variant. Each row is written as soon as it is measured; a last line
says that all rows are there. A file without that line holds good rows of an unfinished experiment: reading it gives
`complete=False`, and `labkit record` continues it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.engines import Provenance, RecordingError, recordings_dir
from labkit.extras import extra

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
RECORDINGS = recordings_dir()
SUFFIX = ".experiment.jsonl"
_END = {"end": True}


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of an experiment and where they come from. `variant` says in a word what was special about the engine.

    `complete` is False for a recording that was not finished.
    """

    experiment: str
    variant: str
    provenance: Provenance
    rows: tuple[Mapping[str, float], ...]
    complete: bool

    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        with extra("analysis"):
            import pandas as pd

        return pd.DataFrame([dict(row) for row in self.rows])

    def caption(self) -> str:
        """A text for the foot of a chart: the provenance, and UNFINISHED for a recording that is not complete."""
        return self.provenance.caption() + ("" if self.complete else " · UNFINISHED")

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read a recording; its provenance gets the kind "replay".

        Raises `RecordingError` for a file that is missing, is no recording, lacks full provenance, or holds numbers of a
        replay or of the modelled engine.
        """
        try:
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        except OSError as error:
            raise RecordingError(f"no recording at {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecordingError(f"{path} is no text: {error}; record the experiment again") from error
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number == len(lines) and number > 1:  # the recorder was stopped in the middle of this line
                    break
                raise RecordingError(f"{path}, line {number} is no JSON: {error}; record the experiment again") from error
        header = rows[0] if rows else {}
        origin = header.get("provenance") if isinstance(header, dict) else None
        if not isinstance(origin, dict) or header.get("labkit_experiment") != FORMAT:
            raise RecordingError(
                f"{path} has no provenance header; numbers of unknown origin are not shown, record them again"
            )
        missing = [name for name in ("experiment", "variant") if not isinstance(header.get(name), str)]
        if missing:
            raise RecordingError(f"the header of {path} lacks {' and '.join(missing)}; record the experiment again")
        if not all(isinstance(row, dict) for row in rows):
            raise RecordingError(f"{path} holds a line that is no row of names and numbers; record the experiment again")
        try:
            provenance = Provenance.from_dict(origin)
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from error
        if provenance.kind in ("replay", "modelled"):
            raise RecordingError(f"{path} holds {provenance.kind} numbers, and only measured ones are recordings; delete it")
        complete = rows[-1] == _END
        measured = tuple(rows[1:-1] if complete else rows[1:])
        return cls(header["experiment"], header["variant"], replace(provenance, kind="replay"), measured, complete)


def recordings(
    experiment: str | None = None, *, model: str | None = None, folder: Path = RECORDINGS
) -> tuple[Measured, ...]:
    """The recordings in `folder`, newest first: all, or only those of an experiment or of a model.

    Raises `RecordingError`, as `Measured.load` does, when any file in `folder` cannot be read as a recording.
    """
    found = [Measured.load(path) for path in sorted(folder.glob(f"*/*{SUFFIX}"))]
    chosen = [m for m in found if experiment in (None, m.experiment) and model in (None, m.provenance.model)]
    return tuple(sorted(chosen, key=lambda m: m.provenance.date, reverse=True))


def recording_name(experiment: str, model: str, variant: str) -> str:
    """The name of a recording's file, without the ending; a folder or a hub id counts by its last part."""
    return f"{experiment}-{Path(model).stem if '/' in model else model}-{variant}"


def recording_path(folder: Path, origin: Provenance, name: str) -> Path:
    """Where a recording called `name` lies: in a folder for the GPU, or for the processor where there is none."""
    device = origin.device if origin.driver else origin.machine.split(",")[0]
    return folder / re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") / f"{name}{SUFFIX}"


class Recorder:
    """Writes one recording, row by row, and continues a recording that the same engine began at `path`.

    `done` are the rows so far. Raises `RecordingError` when the file at `path` was made by another engine or machine, for
    provenance that is not full, and for an engine that replays or is modelled.
    """

    def __init__(self, path: Path, experiment: str, variant: str, provenance: Provenance) -> None:
        _check_measured(provenance)
        self.path = path
        self.done: tuple[Mapping[str, float], ...] = ()
        path.parent.mkdir(parents=True, exist_ok=True)
        header = _header(experiment, variant, provenance)
        if path.exists():
            before = Measured.load(path)
            if _lasting(before.provenance) != _lasting(provenance):
                raise RecordingError(
                    f"{path} was recorded on {before.provenance.caption()}, and this is another engine or machine; delete "
                    "it to record anew, or name another folder"
                )
            self.done = before.rows
            header["provenance"] = {**before.provenance.as_dict(), "kind": provenance.kind}
        # Write the file anew, because an unfinished file may end in half a line.
        self._lines: list[Mapping[str, Any]] = [header, *self.done]
        _replace(path, self._lines)

    def add(self, row: Mapping[str, float]) -> None:
        """Append one row to the file."""
        self.done = (*self.done, row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

    def finish(self) -> None:
        """Write the last line, which says that all rows are there."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_END) + "\n")


def _check_measured(provenance: Provenance) -> None:
    """Raise `RecordingError` unless the provenance is full and of an engine that measures."""
    Provenance.from_dict(provenance.as_dict())
    if provenance.kind in ("replay", "modelled"):
        raise RecordingError(f"a {provenance.kind} engine cannot be recorded: its numbers were not measured here")


def _header(experiment: str, variant: str, provenance: Provenance) -> dict[str, Any]:
    return {
        "labkit_experiment": FORMAT,
        "experiment": experiment,
        "variant": variant,
        "provenance": provenance.as_dict(),
    }


def _lasting(provenance: Provenance) -> tuple[object, ...]:
    p = provenance
    return p.machine, p.device, p.engine, p.engine_version, p.model, p.driver, json.dumps(dict(p.arguments), sort_keys=True)


def _replace(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    whole = path.with_suffix(".new")
    whole.write_text("".join(json.dumps(dict(line)) + "\n" for line in lines), encoding="utf-8")
    whole.replace(path)
