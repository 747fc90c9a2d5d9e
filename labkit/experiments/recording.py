"""Run experiments on this machine's engine, and record every row with its provenance."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from labkit.engines import Engine, Provenance, RecordingError, connect, machine
from labkit.experiments.catalogue import EXPERIMENTS, Measurement
from labkit.experiments.measured import RECORDINGS, SUFFIX, Measured, Recorder, recording_path
from labkit.experiments.shapes import DUMMY, dummy_model
from labkit.latency import shape_names
from labkit.load import ExactLengths
from labkit.request import LabError, complete


async def run_all(
    jobs: Iterable[Measurement],
    *,
    folder: Path = RECORDINGS,
    minutes: float | None = None,
    progress: Callable[[str], None] = print,
    command: str = "labkit record",
) -> bool:
    """Run `jobs` one after another and write `folder`/<device>/<job>.experiment.jsonl; True when all are finished.

    Points that an unfinished recording already holds are left out; finished recordings of this machine are not touched.
    After `minutes`, no further point is begun. When an engine does not start, or dies, only its own jobs are lost, and
    `progress` is told why. It is also told of each file of a job's name in `folder` that cannot be read as a recording: one
    of another device changes nothing, and one of this machine costs its own job. `command` is recorded in the provenance.
    """
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    finished = True
    waiting = [job for job in jobs if not _is_finished(job, folder, progress)]
    with tempfile.TemporaryDirectory() as shapes:
        # One engine for neighbouring jobs that need the same one.
        for (model, arguments), group in groupby(waiting, key=lambda job: (job.model, json.dumps(dict(job.arguments)))):
            if ends is not None and time.monotonic() > ends:
                progress("the time is up; the same command goes on from here")
                return False
            dummy = model in shape_names() or model.endswith(".json")
            given = json.loads(arguments) | (DUMMY if dummy else {})
            path = str(dummy_model(model, Path(shapes))) if dummy else model
            try:
                async with await connect("vllm", path, progress=progress, **given) as engine:
                    origin = replace(
                        engine.provenance, model=model + (" (random weights)" if dummy else ""), command=command
                    )
                    finished &= await _run(engine, list(group), origin, folder, ends, progress)
            except LabError as error:
                finished = False
                progress(f"{model} {arguments}: {error}")
    return finished


async def _run(
    engine: Engine,
    jobs: list[Measurement],
    origin: Provenance,
    folder: Path,
    ends: float | None,
    progress: Callable[[str], None],
) -> bool:
    make = ExactLengths(str(engine.tokenizer_path))
    for people in (1, 4, 16):  # warm up: the first steps of a batch size are slower than all later ones
        await asyncio.gather(*(complete(engine, make(64, 16)) for _ in range(people)))
    finished = True
    for job in jobs:
        path = recording_path(folder, origin, job.name)
        try:
            recorder = Recorder(path, job.experiment, job.variant, origin)
        except RecordingError as error:
            finished = False
            progress(f"{job.name}: {error}")
            continue
        before = len(recorder.done)
        todo = _left(job, recorder.done)
        for n, point in enumerate(todo, before + 1):
            if ends is not None and time.monotonic() > ends:
                progress(
                    f"the time is up at {job.name}, {n - 1} of {before + len(todo)}; the same command goes on from here"
                )
                return False
            recorder.add(await EXPERIMENTS[job.experiment](engine, make, point))
        recorder.finish()
        progress(f"{job.name}: {len(recorder.done)} rows in {recorder.path}")
    return finished


def _is_finished(job: Measurement, folder: Path, progress: Callable[[str], None]) -> bool:
    for path in sorted(folder.glob(f"*/{job.name}{SUFFIX}")):
        try:
            found = Measured.load(path)
        except RecordingError as error:
            progress(f"{job.name}: {error}")
            continue
        if found.complete and found.provenance.machine == machine():
            return True
    return False


def _left(job: Measurement, done: Iterable[Mapping[str, float]]) -> list[Mapping[str, int]]:
    """The points still to measure: all points once, then all points again, without those that `done` holds."""
    counts = [sum(1 for row in done if all(row.get(k) == v for k, v in point.items())) for point in job.points]
    return [point for turn in range(job.repeats) for point, count in zip(job.points, counts, strict=True) if turn >= count]
