"""Execute a notebook as Binder would, under a memory limit, and report what it took: `python binder/measure.py`.

A JupyterLab server, the notebook's kernel and its live engine run in a control group of their own that has the limit, with
the settings of `binder/start`. This needs root on Linux, with cgroup 1 or 2. Linux kills a process of the group when the
group needs more memory, so a pass means that the notebook fits. Papermill runs in the group, too, but not on Binder, so the
figure errs on the careful side.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CGROUPS = Path("/sys/fs/cgroup")
MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """How one run went. `ok`: the notebook passed, and no process was `killed` for memory.

    Peaks are in MiB, wall time in seconds. `peak_mib` counts everything charged to the group, even file pages that the
    system would have given back. `peak_processes_mib` counts what the processes themselves held.
    """

    notebook: str
    limit_mib: int
    ok: bool
    killed: int
    peak_mib: float
    peak_processes_mib: float
    wall_s: float


class Group:
    """A memory control group of either version, made with a limit and removed at the end."""

    def __init__(self, limit_mib: int) -> None:
        self.old = (CGROUPS / "memory").is_dir()
        membership = Path("/proc/self/cgroup").read_text()
        inside = re.search(r"^\d+:memory:(.*)$" if self.old else r"^0::(.*)$", membership, re.MULTILINE)
        parent = (CGROUPS / "memory" if self.old else CGROUPS) / (inside[1].lstrip("/") if inside else "")
        self.path = parent / f"labkit-binder-{os.getpid()}"
        try:
            self.path.mkdir()
            (self.path / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(limit_mib * MIB))
        except OSError as error:
            sys.exit(f"measure: no control group can be made under {parent} ({error.strerror}). Fix: run as root on Linux.")
        # With swap, a group over its limit would not be killed.
        for name in ("memory.memsw.limit_in_bytes",) if self.old else ("memory.swap.max",):
            if (self.path / name).exists():
                (self.path / name).write_text(str(limit_mib * MIB) if self.old else "0")

    def enter(self) -> None:
        """Move the calling process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def members(self) -> list[int]:
        """Ids of the processes in the group."""
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def held(self) -> int:
        """Bytes that the group's processes hold, without file pages."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return int(stat["total_rss" if self.old else "anon"])

    def peak(self) -> int:
        """The most memory charged to the group so far, in bytes."""
        return int((self.path / ("memory.max_usage_in_bytes" if self.old else "memory.peak")).read_text())

    def killed(self) -> int:
        """How many processes of the group were killed for memory."""
        text = (self.path / ("memory.oom_control" if self.old else "memory.events")).read_text()
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def remove(self) -> None:
        """Kill what is left in the group, then remove the group."""
        for _ in range(100):
            left = self.members()
            for pid in left:
                with_none(os.kill, pid, 9)
            if not left:
                break
            time.sleep(0.1)
        self.path.rmdir()


def with_none(call: object, *arguments: int) -> None:
    """Call `call(*arguments)`, and ignore a process that has already ended."""
    try:
        call(*arguments)  # type: ignore[operator]
    except ProcessLookupError:
        return


def start_settings() -> dict[str, str]:
    """The environment that `binder/start` hands to the server."""
    shown = subprocess.run([REPO / "binder" / "start", "env", "-0"], capture_output=True, text=True, check=True).stdout
    return dict(entry.split("=", 1) for entry in shown.split("\0") if entry)


@contextmanager
def sampled(group: Group) -> Iterator[list[int]]:
    """Collect the bytes that the group's processes hold, four times a second, while the `with` body runs."""
    samples, stop = [0], threading.Event()

    def sample() -> None:
        while not stop.wait(0.25):
            samples.append(group.held())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def measure(notebook: Path, limit_mib: int) -> Measured:
    """Run `notebook` under `limit_mib` MiB with a JupyterLab server beside it."""
    group = Group(limit_mib)
    with tempfile.TemporaryDirectory(prefix="binder", dir="/tmp") as scratch:
        environment = {**start_settings(), "LABKIT_STATE": f"{scratch}/state", "LABKIT_RUNTIME_DIR": f"{scratch}/run"}
        Path(scratch, "run").mkdir(mode=0o700)
        lab = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--port=0",
            f"--ServerApp.root_dir={REPO}",
        ]
        runner = (
            "import sys; from pathlib import Path; from labkit.workbook.run import run_notebook\n"
            "kind = 'solved' if 'solutions' in sys.argv[1] else 'learner'\n"
            "ran = run_notebook(Path(sys.argv[1]), Path(sys.argv[2]), profile='ci', kind=kind)\n"
            "print(*ran.problems, sep='\\n', file=sys.stderr); sys.exit(not ran.ok)"
        )
        begin = time.monotonic()
        try:
            with sampled(group) as samples, Path(scratch, "lab.log").open("w") as log:
                subprocess.Popen(
                    lab, preexec_fn=group.enter, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                time.sleep(10)
                execute = [sys.executable, "-c", runner, str(notebook), f"{scratch}/out"]
                done = subprocess.run(
                    execute, preexec_fn=group.enter, env=environment, stdin=subprocess.DEVNULL, check=False, timeout=900
                )
            killed, peak = group.killed(), group.peak()
        finally:
            group.remove()
        return Measured(
            notebook=notebook.name,
            limit_mib=limit_mib,
            ok=done.returncode == 0 and killed == 0,
            killed=killed,
            peak_mib=round(peak / MIB, 1),
            peak_processes_mib=round(max(samples) / MIB, 1),
            wall_s=round(time.monotonic() - begin, 1),
        )


def main() -> int:
    """Measure from the command line. Returns 0 when the notebook passed and fit, else 1."""
    parser = argparse.ArgumentParser(description="Execute a notebook under Binder's memory limit.")
    parser.add_argument("notebook", nargs="?", type=Path, default=REPO / "notebooks" / "00_start_here.ipynb")
    parser.add_argument("--limit-mib", type=int, default=2048)
    options = parser.parse_args()
    measured = measure(options.notebook.resolve(), options.limit_mib)
    print(json.dumps(asdict(measured), indent=1))
    return 0 if measured.ok else 1


if __name__ == "__main__":
    sys.exit(main())
