"""Execute notebooks headless: `python -m labkit.workbook.run [--as learner] [names…] --profile ci --out build/notebooks`.

With blank exercises (`learner`), a notebook must still run to its end. With solutions (`solved`), every check must pass.
`proved` shows both in one run (see `build.Built`). Each notebook runs in a kernel of its own, with the learner's state in a
scratch folder. The executed notebook is kept. `report.json` and `report.md` record wall time and the peak memory of the
kernel and all it started, engines included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil

from labkit.engines import running_engines
from labkit.workbook.bench import RECORD
from labkit.workbook.book import PROFILES
from labkit.workbook.build import PROOF, build_file, sources
from labkit.workbook.charts import MIME
from labkit.workbook.exercise import ExerciseError
from labkit.workbook.paths import chapter_recording, notebooks_dir
from labkit.workbook.recorded import load

KINDS = ("learner", "solved", "proved")
_SAMPLE_S = 0.5  # reading the memory of an engine's processes takes tens of milliseconds from what is measured
_WIDGETS = "application/vnd.jupyter.widget-state+json"
_VIEW = "application/vnd.jupyter.widget-view+json"
_MODEL = re.compile(r"\bIPY_MODEL_(\w+)")


@dataclass(frozen=True, slots=True)
class Ran:
    """One executed notebook: wall time in seconds, peak memory in MiB, number of charts, and the problems found.

    `recorded` are the ids of the measurements that it did not make but replayed.
    """

    notebook: str
    kind: str
    profile: str
    wall_s: float
    peak_mib: float
    charts: int
    problems: tuple[str, ...]
    recorded: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ran to its end with nothing wrong."""
        return not self.problems


class MemoryPeak:
    """Samples memory twice a second; `mib` is the highest sum seen, in MiB.

    The sum covers this process's descendants, and the user's shared engines with their host, which are not descendants of
    this process. It adds proportional set sizes where the system tells them (shared pages count once), else resident sizes.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.mib = max(self.mib, sum(_memory(p) for p in self._processes()) / 2**20)
            if self._stop.wait(_SAMPLE_S):
                return

    def _processes(self) -> set[psutil.Process]:
        found = set(psutil.Process().children(recursive=True))
        try:
            roots = {pid for engine in asyncio.run(running_engines()) for pid in (engine.host_pid, engine.pid)}
        except (OSError, ValueError):
            roots = set()  # a host is just ending
        for pid in roots:
            try:
                process = psutil.Process(pid)
                found |= {process, *process.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue
        return found


def run_notebook(path: Path, out: Path, *, profile: str, kind: str, engine: str = "auto", timeout_s: int = 900) -> Ran:
    """Execute one notebook into the folder `out` and inspect its outputs.

    `timeout_s` limits each cell, in seconds. Errors of the notebook become problems of the result and are not raised. The
    proof cells (see `build.Built`) are run and inspected, but taken out of the notebook that is kept. Recordings that the
    chapter made are copied to `out/recordings`.
    """
    out.mkdir(parents=True, exist_ok=True)
    executed = out / path.name
    problems: list[str] = []
    started = time.perf_counter()
    with MemoryPeak() as peak, _scratch_state() as state:
        try:
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters={"profile": profile, "engine": engine, "solutions": kind == "solved"},
                kernel_name="python3",
                cwd=str(notebooks_dir()),
                progress_bar=False,
                execution_timeout=timeout_s,
            )
        except papermill.PapermillExecutionError as error:
            problems.append(f"{error.ename}: {error.evalue}")
        except Exception as error:  # noqa: BLE001 - a dead kernel or a time-out belongs in the report, too
            problems.append(f"{type(error).__name__}: {error}")
        if (state / "recordings").exists():  # a chapter keeps them for machines that cannot measure
            shutil.copytree(state / "recordings", out / "recordings", dirs_exist_ok=True)
    wall = time.perf_counter() - started
    charts, recorded = 0, tuple[str, ...]()
    if executed.exists():
        notebook = nbformat.read(executed, as_version=4)
        problems += inspect_outputs(notebook)[0]
        without_proof(notebook)
        charts, recorded = inspect_outputs(notebook)[1], replayed(notebook)
        nbformat.write(notebook, executed)
    return Ran(path.stem, kind, profile, round(wall, 1), round(peak.mib, 1), charts, tuple(problems), recorded)


def inspect_outputs(notebook: Any) -> tuple[list[str], int]:
    """The problems of an executed notebook's outputs, and the number of charts that it holds."""
    problems: list[str] = []
    widgets = notebook.metadata.get("widgets", {}).get(_WIDGETS, {}).get("state", {})
    live = [o for state in widgets.values() for o in state.get("state", {}).get("outputs") or ()]
    charts = sum(MIME in output.get("data", {}) for output in live)
    if any(not _has_rows(output["data"][MIME]) for output in live if MIME in output.get("data", {})):
        problems.append("a live chart has no data")
    problems += [f"a live chart raised {output['ename']}" for output in live if output.get("output_type") == "error"]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {number} raised {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and "Traceback (most recent call last)" in output.text:
                problems.append(f"cell {number} printed a traceback")
            elif "vegaEmbed" in str(output.get("data", {}).get("text/html", "")):
                problems.append(f"cell {number} shows a chart that needs a network; use show()")
            elif MIME in output.get("data", {}):
                charts += 1
                if not output["data"][MIME].get("description"):
                    problems.append(f"cell {number} shows a chart without a text alternative; use show()")
                if not _has_rows(output["data"][MIME]):
                    problems.append(f"cell {number} shows a chart without data")
    return problems, charts


def replayed(notebook: Any) -> tuple[str, ...]:
    """The ids of the measurements that an executed notebook replayed from a recording."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    marks = [output.get("metadata", {}).get("labkit", {}).get("recorded") for output in outputs]
    return tuple(dict.fromkeys(mark for mark in marks if mark))


def without_proof(notebook: Any) -> None:
    """Take the proof cells out of an executed notebook, and the state of widgets that no other cell shows."""
    notebook.cells = [cell for cell in notebook.cells if PROOF not in cell.metadata.get("tags", ())]
    models = notebook.metadata.get("widgets", {}).get(_WIDGETS, {}).get("state", {})
    waiting = [
        output["data"][_VIEW]["model_id"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if _VIEW in output.get("data", {})
    ]
    shown: set[str] = set()
    while waiting:
        model = waiting.pop()
        if model in models and model not in shown:
            shown.add(model)
            waiting += _MODEL.findall(json.dumps(models[model]))
    for model in models.keys() - shown:
        del models[model]


def report_markdown(ran: Sequence[Ran]) -> str:
    """The runs as a markdown table."""
    lines = [
        "| notebook | as | profile | wall time (s) | peak memory (MiB) | charts | result |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for r in ran:
        result = "ok" if r.ok else "; ".join(p.splitlines()[0] for p in r.problems).replace("|", "\\|")
        lines.append(
            f"| {r.notebook} | {r.kind} | {r.profile} | {r.wall_s:.1f} | {r.peak_mib:.0f} | {r.charts} | {result} |"
        )
    return "\n".join(lines) + "\n"


def run_all(names: Sequence[str], out: Path, *, profile: str, kind: str, engine: str = "auto") -> list[Ran]:
    """Execute the notebooks one after the other and write the report to `out`.

    No names means all notebooks. `kind` is one of `KINDS`. The report keeps the earlier results in `out` of other notebooks
    and other kinds. Raises `ExerciseError` for a name that no source has.
    """
    ran = []
    with tempfile.TemporaryDirectory(prefix="labkit-notebooks-") as folder:
        for source in sources(names):
            path = Path(folder) / f"{source.stem}.ipynb"
            path.write_text(getattr(build_file(source), kind), encoding="utf-8")
            one = run_notebook(path, out / kind, profile=profile, kind=kind, engine=engine)
            print(
                f"{one.notebook} ({kind}): {'ok' if one.ok else 'FAILED'}, {one.wall_s:.1f} s, {one.peak_mib:.0f} MiB",
                flush=True,
            )
            ran.append(one)
    _write_report(ran, out)
    return ran


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns 0 when every notebook passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m labkit.workbook.run", description="Execute the notebooks headless.")
    parser.add_argument("names", nargs="*", help="notebooks, such as 00_start_here; all of them by default")
    parser.add_argument(
        "--as", dest="kind", default="learner", choices=KINDS, help="blank exercises, solved ones, or both in one run"
    )
    parser.add_argument("--profile", default="ci", choices=PROFILES)
    parser.add_argument("--engine", default="auto", help="as for connect(); 'replay' shows the recordings")
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"))
    parser.add_argument(
        "--record", action="store_true", help="run solved, and keep what each chapter measures in data/recordings/chapters"
    )
    options = parser.parse_args(arguments)
    engine, kind = (RECORD, "solved") if options.record else (options.engine, options.kind)
    try:
        ran = run_all(options.names, options.out, profile=options.profile, kind=kind, engine=engine)
    except ExerciseError as error:
        parser.error(str(error))
    for one in ran:
        for problem in one.problems:
            print(f"{one.notebook}: {problem}", file=sys.stderr)
        if options.record and one.ok:
            kept = chapter_recording(one.notebook)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options.out / kind / "recordings" / kept.name, kept)
            loaded = load(kept)
            print(f"{one.notebook}: {len(loaded.measurements)} measurements kept, quiet machine: {loaded.quiet}")
    return 0 if ran and all(one.ok for one in ran) else 1


def _write_report(ran: Sequence[Ran], out: Path) -> None:
    path = out / "report.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    fresh = {(r.notebook, r.kind) for r in ran}
    kept = [
        Ran(**{**r, "problems": tuple(r["problems"]), "recorded": tuple(r.get("recorded", ()))})
        for r in before
        if (r["notebook"], r["kind"]) not in fresh
    ]
    rows = sorted([*kept, *ran], key=lambda r: (r.notebook, KINDS.index(r.kind)))
    path.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(report_markdown(rows), encoding="utf-8")


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


@contextmanager
def _scratch_state() -> Iterator[Path]:
    """Point `LABKIT_STATE` to a temporary folder, so that a headless run never touches the learner's progress."""
    before = os.environ.get("LABKIT_STATE")
    with tempfile.TemporaryDirectory(prefix="labkit-state-", ignore_cleanup_errors=True) as folder:
        os.environ["LABKIT_STATE"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["LABKIT_STATE"]
            else:
                os.environ["LABKIT_STATE"] = before


def _has_rows(chart: Any) -> bool:
    """Whether a Vega-Lite specification has inline data, and no inline data set is empty."""
    inline = list(chart.get("datasets", {}).values())
    stack = [chart]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            data = node.get("data")
            if isinstance(data, dict) and "values" in data:
                inline.append(data["values"])
            stack += [v for k, v in node.items() if k in ("layer", "hconcat", "vconcat", "concat", "spec")]
        elif isinstance(node, list):
            stack += node
    return bool(inline) and all(len(rows) > 0 for rows in inline)


if __name__ == "__main__":
    sys.exit(main())
