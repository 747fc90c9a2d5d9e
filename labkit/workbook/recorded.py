"""What a chapter measured on another machine, for machines that lack what it needs and for moments that are too noisy.

A recording is JSON lines: a header, then a line for each measurement and for each revealed result of one run. Each
measurement says which engines it was made on, how long it took, and how noisy the machine was. A run with `--record` makes
one (see `labkit.workbook.run`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.engines import Provenance, RecordingError
from labkit.workbook.exercise import ExerciseError
from labkit.workbook.kept import from_json, to_json
from labkit.workbook.noise import Noise
from labkit.workbook.paths import repo_root
from labkit.workbook.rounds import Spread

if TYPE_CHECKING:  # it computes with arrays, which opening a chapter does not need
    from labkit.portal import Line

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """One recorded measurement: its value as JSON, the engines it was made on, its seconds, and the machine's noise then."""

    value: Any
    engines: tuple[Provenance, ...]
    seconds: float
    noise: Noise


@dataclass(frozen=True, slots=True)
class Recorded:
    """The measurements and the revealed results of one run of a chapter, each by its id, and its lines of the bill."""

    chapter: str
    profile: str
    measurements: Mapping[str, Kept]
    revealed: Mapping[str, str | Spread]
    billed: tuple[Line, ...] = ()

    @property
    def quiet(self) -> bool:
        """Whether the machine was quiet for nine tenths of the time that was measured, so that others may be held to it."""
        took = [(max(kept.seconds, 0.01), kept.noise.quiet) for kept in self.measurements.values()]
        return sum(seconds for seconds, quiet in took if quiet) >= 0.9 * sum(seconds for seconds, _ in took)

    @property
    def engines(self) -> tuple[Provenance, ...]:
        """The engines of all measurements, in their order."""
        return tuple(one for kept in self.measurements.values() for one in kept.engines)

    def caption(self) -> str:
        """The machine, the models and the date, for a chart's foot."""
        return captions(self.engines)


def captions(engines: Sequence[Provenance]) -> str:
    """The captions of the engines, each once."""
    return "; ".join(dict.fromkeys(engine.caption() for engine in engines))


def load(path: Path) -> Recorded:
    """Read a chapter's recording; its engines' provenance gets the kind "replay".

    Raises `ExerciseError` for a file that cannot be read or says too little about where it comes from.
    """
    again = "record it again with `python -m labkit.workbook.run --record`"
    try:
        header, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip())
        if header.get("labkit_chapter") != FORMAT:
            raise ValueError(f"its header says {header}")
        measured = {line["measured"]: _kept(line) for line in lines if "measured" in line}
        if not measured:
            raise ValueError("it holds no measurement")
        revealed = {line["revealed"]: _result(line) for line in lines if "revealed" in line}
        billed = tuple(_line(line["billed"]) for line in lines if "billed" in line)
        return Recorded(str(header["chapter"]), str(header["profile"]), measured, revealed, billed)
    except OSError as error:
        raise ExerciseError(f"there is no recording {path.name}: {error.strerror}; {again}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecordingError) as error:
        raise ExerciseError(f"{path.name} is no recording of a chapter: {error!r:.200}; {again}") from error


class Writer:
    """Writes the recording of one run to `path`, line by line; its first line replaces an earlier file."""

    def __init__(self, path: Path, chapter: str, profile: str) -> None:
        self._path = path
        self._header: Mapping[str, Any] | None = {"labkit_chapter": FORMAT, "chapter": chapter, "profile": profile}

    def measured(self, id: str, value: Any, engines: Sequence[Provenance], seconds: float, noise: Noise) -> None:
        """Add a measurement. Raises `ExerciseError` for a value that cannot be kept or names a folder of this machine."""
        self._add(
            {
                "measured": id,
                "engines": [engine.as_dict() for engine in engines],
                "seconds": round(seconds, 2),
                "noise": asdict(noise),
                "value": to_json(value),
            }
        )

    def revealed(self, id: str, result: str | Spread) -> None:
        """Add a revealed result."""
        self._add({"revealed": id, "result": result if isinstance(result, str) else asdict(result)})

    def billed(self, line: Line) -> None:
        """Add a line of the bill."""
        self._add({"billed": to_json(line)})

    def _add(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False)
        for folder in (tempfile.gettempdir(), str(Path.home()), str(repo_root())):
            if f"{folder}/" in text:
                raise ExerciseError(
                    f"this measurement would record a folder of this machine, {folder}: return what was measured, not where"
                )
        if self._header is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._header) + "\n", encoding="utf-8")
            self._header = None
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _kept(line: Mapping[str, Any]) -> Kept:
    engines = tuple(replace(Provenance.from_dict(one), kind="replay") for one in line["engines"])
    if not engines:
        raise ValueError(f"the measurement {line['measured']} names no engine")
    return Kept(line["value"], engines, float(line["seconds"]), Noise(**line["noise"]))


def _result(line: Mapping[str, Any]) -> str | Spread:
    result = line["result"]
    return result if isinstance(result, str) else Spread(**result)


def value_of(kept: Kept) -> Any:
    """The recorded value, made anew at each call."""
    return from_json(kept.value)


def _line(kept: Any) -> Line:
    from labkit.portal import Line

    line = from_json(kept)
    if not isinstance(line, Line):
        raise ValueError(f"it holds {kept!r:.80} as a line of the bill")
    return line
