"""Where a number came from: the machine, the engine and its arguments, in words a chart can carry."""

from __future__ import annotations

import os
import platform
import pprint
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from labkit.engines.errors import RecordingError

Origin = Literal["live", "endpoint", "replay", "modelled"]
_MAY_BE_EMPTY = {"arguments", "driver"}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who produced an answer, on what, when and how.

    `kind` is how the answer reaches the reader now: from a live engine of ours, from somebody's endpoint, replayed, or
    modelled, which is not measured at all. `date` is when it was measured or computed (ISO 8601, UTC). `driver` is the GPU
    driver's version, empty on a CPU. `command` is the call to run to get such an answer again.
    """

    kind: Origin
    machine: str
    device: str
    engine: str
    engine_version: str
    model: str
    date: str
    command: str
    driver: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def caption(self) -> str:
        """One line for the foot of a chart; a replayed or modelled chart says so in capitals."""
        if self.kind == "modelled":
            return f"{self.model} · {self.engine} {self.engine_version} · {self.device} · MODELLED, not measured"
        how = {"live": "measured live", "endpoint": "measured on an endpoint", "replay": "REPLAYED from a recording"}[
            self.kind
        ]
        where = self.machine if self.device in self.machine else f"{self.machine}, {self.device}"
        return f"{self.model} · {self.engine} {self.engine_version} · {where} · {how} {self.date[:10]}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a recording's header."""
        return {**asdict(self), "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """The opposite of `as_dict`. Raises `RecordingError` naming every missing, empty or unknown field."""
        names = {f.name for f in fields(cls)}
        missing = sorted(n for n in names if n not in values or (not values[n] and n not in _MAY_BE_EMPTY))
        unknown = sorted(set(values) - names)
        if missing or unknown:
            faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
            raise RecordingError(
                f"the provenance {' and '.join(faults)}; numbers without a full provenance are not shown, record them again"
            )
        return cls(**values)


def today() -> str:
    """Now, as ISO 8601 in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def machine() -> str:
    """This machine in words: processor, the cores this process may use, memory, system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{_processor()}, {cores} cores, {pages * size / 2**30:.0f} GiB, {platform.system()}"


@cache
def gpu() -> tuple[str, str] | None:
    """Name and driver version of the first NVIDIA GPU, or None without one."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode or not done.stdout.strip():
        return None
    name, driver = (part.strip() for part in done.stdout.splitlines()[0].split(",")[:2])
    return name, driver


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def call_text(engine: str, model: str, arguments: Mapping[str, Any]) -> str:
    """The call that connects to such an engine, in Python that runs, with the arguments in a stable order."""
    extra = f", **{pprint.pformat(dict(arguments), width=sys.maxsize)}" if arguments else ""
    return f"await labkit.engines.connect({engine!r}, {model!r}{extra})"
