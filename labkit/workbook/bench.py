"""Where a chapter measures: its engines, its measurements, and the recording that stands in for what a machine lacks.

A chapter declares what it needs. A measurement whose needs the engine at hand meets is made now; any other is replayed from
the chapter's recording, and says so. What a replayed measurement would have asked of an engine is not asked of any.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from labkit.engines import Engine, absent, connect, has_vllm, machine, prepare
from labkit.request import LabError
from labkit.workbook import bars
from labkit.workbook import needs as _needs
from labkit.workbook.exercise import ExerciseError
from labkit.workbook.noise import Noise, gauge
from labkit.workbook.recorded import Recorded, Writer, captions, load, value_of
from labkit.workbook.render import panel_html, show_html
from labkit.workbook.rounds import Spread

if TYPE_CHECKING:
    from labkit.portal import Line

RECORD = "record"
"""The engine's name in a run that records: a live one, whose measurements and results are written down."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What a measurement gave: its `value`, and the `source` for a chart's foot. `recorded`: it was not made in this run."""

    value: T
    source: str
    recorded: bool


class Bench:
    """The engines and measurements of one open chapter.

    `engine` is `connect`'s name of one, or `RECORD`. `needs` are the chapter's; `recording` is the file of its recording,
    and `writes` the file that a recording run writes. `quiet` shows no progress.
    """

    def __init__(
        self, chapter: str, *, engine: str, profile: str, needs: Collection[str], recording: Path, writes: Path, quiet: bool
    ) -> None:
        self._engine = "auto" if engine == RECORD else engine
        self._writer = Writer(writes, chapter, profile) if engine == RECORD else None
        self._needs = _needs.checked(needs)
        self._path = recording
        self._quiet = quiet
        self._recording: Recorded | None = None
        self._open: list[Engine] = []
        self._met: frozenset[str] | None = None
        self._why = ""
        self._told: set[tuple[str, ...]] = set()
        self.noise: Noise | None = None

    def prepare(self) -> None:
        """Begin to start an engine in the background, if this machine has one: a reader reads a page first."""
        prepare(self._engine)

    async def connect(self, model: str, **arguments: Any) -> Engine:
        """An engine that serves `model`, or a stand-in that answers nothing where this machine has none."""
        why = self._nothing_here()
        if not why:
            try:
                return await self._found(model, **arguments)
            except LabError as error:
                why = str(error)
        engine = self._stand_in(model, why)
        if why != self._why:  # say it once a chapter
            self._why = why
            title = "No engine for this chapter here."
            text = f"{why} Its measurements are shown from a recording: {self.recording().caption()}."
            show_html(panel_html(title, escape(text)), f"{title} {text}")
        return self._opened(engine, frozenset())

    async def close(self) -> None:
        """Give all engines back."""
        while self._open:
            await self._open.pop().aclose()

    def lacks(self, needs: Collection[str] | None = None) -> tuple[str, ...]:
        """Which needs, by default the chapter's, the engines at hand do not meet. Connect first."""
        asked = _needs.checked(self._needs if needs is None else needs)
        if asked and self._met is None:
            raise ExerciseError("no engine is connected yet; run the cell with book.connect first")
        return tuple(need for need in asked if need not in (self._met or ()))

    async def measure(
        self,
        id: str,
        work: Callable[..., Awaitable[Any]],
        *,
        rounds: int | None = None,
        needs: Collection[str] | None = None,
    ) -> Result[Any]:
        """The measurement `id`: what `work` gives now, or where the engine does not do, what the recording holds."""
        missing = self.lacks(needs)
        if missing:
            return self._replayed(id, missing)
        self.noise = gauge()
        begin = time.perf_counter()
        value = await self._timed(id, work) if rounds is None else await self._in_rounds(id, work, rounds)
        seconds = time.perf_counter() - begin
        engines = [engine.provenance for engine in self._open if engine.provenance.kind != "replay" and needs != ()]
        if self._writer is not None and engines:
            self._writer.measured(id, value, engines, seconds, self.noise)
        if not self.noise.quiet:
            self._warn(self.noise)
        return Result(
            value, captions(engines) or f"{machine()} · measured live {datetime.now(UTC):%Y-%m-%d}", recorded=False
        )

    def revealed(self, id: str, result: str | Spread) -> None:
        """Note a result for the recording, where this run makes one."""
        if self._writer is not None:
            self._writer.revealed(id, result)

    def billed(self, line: Line) -> None:
        """Note a line of the bill for the recording, where this run makes one."""
        if self._writer is not None:
            self._writer.billed(line)

    def quiet_result(self, id: str) -> tuple[str | Spread, str] | None:
        """The result that a quiet machine recorded and its caption, where this run's last measurement was a noisy one."""
        quiet = self._quiet_recording()
        if self.noise is None or self.noise.quiet or quiet is None or id not in quiet.revealed:
            return None
        return quiet.revealed[id], quiet.caption()

    def recording(self) -> Recorded:
        """The chapter's recording. Raises `ExerciseError` where there is none."""
        if self._recording is None:
            self._recording = load(self._path)
        return self._recording

    async def _found(self, model: str, **arguments: Any) -> Engine:
        """The engine that this machine has. Raises what `connect` does."""
        last = ""

        def report(step: str) -> None:
            nonlocal last
            last = step
            show(step)

        with bars.steps(model, quiet=self._quiet) as show:
            engine = await connect(self._engine, model, progress=report, **arguments)
        print(f"{model}: {last}")
        try:
            return self._opened(engine, await _needs.capabilities(engine))
        except BaseException:
            await engine.aclose()
            raise

    def _nothing_here(self) -> str:
        """Why this machine cannot have an engine at all, or an empty text."""
        if self._engine != "auto" or os.environ.get("LABKIT_BASE_URL"):
            return "" if self._engine != "replay" else "This run was asked for the recording."
        if has_vllm():
            return ""
        if os.environ.get("LABKIT_ENGINE") == "none":
            return "LABKIT_ENGINE=none asks for no engine."
        return "vLLM is not installed here, and LABKIT_BASE_URL names no endpoint."

    def _opened(self, engine: Engine, met: frozenset[str]) -> Engine:
        self._open.append(engine)
        self._met = met if self._met is None else self._met & met
        return engine

    def _stand_in(self, model: str, why: str) -> Engine:
        """An engine that refuses every request, with the recording's provenance and the tokenizer of the lab's own model."""
        recorded = self.recording().engines
        provenance = next((one for one in recorded if one.model == model), recorded[0])
        return absent(model, provenance, why)

    def _replayed(self, id: str, missing: tuple[str, ...]) -> Result[Any]:
        recording = self.recording()
        if id not in recording.measurements:
            raise ExerciseError(
                f"the recording of chapter {recording.chapter} does not hold the measurement {id!r}; it holds "
                f"{', '.join(recording.measurements)}. Record the chapter again, on a machine with {_needs.words(missing)}"
            )
        kept = recording.measurements[id]
        source = captions(kept.engines)
        title = f"Recorded, not measured now: {id}."
        text = "" if missing in self._told else f"It needs {_needs.words(missing)}. {source}"
        self._told.add(missing)  # say what is missing once, not at every measurement
        show_html(panel_html(title, escape(text)), f"{title} {text}".strip(), recorded=id)
        return Result(value_of(kept), source, recorded=True)

    async def _timed(self, id: str, work: Callable[..., Awaitable[Any]]) -> Any:
        return await bars.timed(work(), id, about_s=self._recorded_seconds(id), quiet=self._quiet)

    async def _in_rounds(self, id: str, work: Callable[..., Awaitable[Any]], rounds: int) -> list[Any]:
        if rounds < 1:
            raise ExerciseError(f"measurement {id}: rounds={rounds} must be at least 1")
        return [await work(number) for number in bars.track(range(rounds), id, quiet=self._quiet)]

    def _quiet_recording(self) -> Recorded | None:
        """The chapter's recording, where there is one and its machine was quiet."""
        return self.recording() if self._path.is_file() and self.recording().quiet else None

    def _recorded_seconds(self, id: str) -> float | None:
        if not self._path.is_file():
            return None
        kept = self.recording().measurements.get(id)
        return None if kept is None else kept.seconds

    def _warn(self, noise: Noise) -> None:
        quiet = self._quiet_recording()
        beside = f" Results stand beside those of a quiet machine: {quiet.caption()}." if quiet else ""
        text = f"Just now, {noise}. Timings of this cell belong to this moment.{beside}"
        show_html(panel_html("This machine is busy.", escape(text)), f"This machine is busy. {text}")
