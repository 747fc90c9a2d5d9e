"""Make `.venv` from the pins, once. `make lab` and `make test` run this first.

Run it with any Python 3.11 to 3.13; it needs only the standard library. It leaves a stamp in the environment with a digest
of the pins, so that a later call with the same pins returns at once. `LABKIT_ENGINE` (cpu, gpu or none) overrides what the
machine suggests. `--into-this-python` installs into the environment of the Python that runs it, and not into `.venv` (for
Binder or a container).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
IN_PLACE = "--into-this-python" in sys.argv[1:]
VENV = Path(sys.prefix) if IN_PLACE else REPO / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "labkit-pins.json"
PINS = REPO / "requirements"
PYTHONS = ((3, 11), (3, 12), (3, 13))
# What JupyterLab and a chapter import, and what its engine does.
CHAPTER = "import ipykernel.kernelapp, jupyterlab.labapp, labkit.workbook, labkit.load, labkit.stacks"
ENGINES = {
    "cpu": "from labkit.engines.host.child import preload; preload()",
    "gpu": "import vllm.entrypoints.openai.api_server",
}


def has_nvidia_gpu() -> bool:
    """Whether nvidia-smi, the driver's own tool, lists a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def chosen_engine() -> str:
    """Which engine's pins this machine installs: `gpu`, `cpu` or `none`. Exits with a message for a bad `LABKIT_ENGINE`."""
    asked = os.environ.get("LABKIT_ENGINE", "")
    if asked:
        if asked not in ("cpu", "gpu", "none"):
            sys.exit(f"setup: LABKIT_ENGINE={asked} is none of cpu, gpu, none. Fix: choose one, or unset it.")
        return asked
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        print(f"setup: vLLM has no builds for {platform.system()} {platform.machine()}: replay and remote endpoints only")
        return "none"
    return "gpu" if has_nvidia_gpu() else "cpu"


def fingerprint(engine: str) -> dict[str, str]:
    """What the environment with this engine is made from: the engine, the Python, the pins' digest and the clone's path."""
    digest = hashlib.sha256()
    for path in (PINS / "setup.txt", PINS / "common.txt", PINS / f"{engine}.txt", Path(__file__)):
        digest.update(path.read_bytes())
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    digest.update(json.dumps([project["project"], project["build-system"]]).encode())
    return {"engine": engine, "python": platform.python_version(), "pins": digest.hexdigest(), "repository": str(REPO)}


def torch_source(engine: str, environment: dict[str, str]) -> list[str]:
    """uv's options for finding torch's CPU build; none are needed for a GPU or outside Linux.

    They name a folder from pip's own settings that holds the pinned build, else PyTorch's index, which uv knows by itself.
    """
    if engine == "gpu" or sys.platform != "linux":
        return []
    configured = environment.get("PIP_FIND_LINKS", "").split()
    if not configured:
        asked = subprocess.run(
            [str(BIN / "python"), "-m", "pip", "config", "get", "global.find-links"],
            capture_output=True,
            text=True,
            check=False,
        )
        configured = asked.stdout.split() if asked.returncode == 0 else []
    wanted = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pin = next(line for line in (PINS / f"{engine}.txt").read_text().splitlines() if line.startswith("torch==")).split()[0]
    for folder in configured:
        if any(wanted in wheel.name for wheel in Path(folder).glob(pin.replace("==", "-") + "-*.whl")):
            return ["--find-links", folder]
    return ["--torch-backend", "cpu"]


def odd_in(folder: Path) -> str:
    """The characters of a path that some tools cannot handle, as in "'#' and ' '"; empty when there are none."""
    plain = "._-" + os.sep
    there = str(folder)[len(folder.drive) :]
    odd = dict.fromkeys(c for c in there if not (c.isascii() and c.isalnum()) and c not in plain)
    return " and ".join(repr(c) for c in odd)


def advice(fix: str, folder: Path) -> str:
    """What to do about a failed step: `fix`, or to move the clone when its path has odd characters."""
    odd = odd_in(folder)
    if not odd:
        return fix
    return (
        f"the path {folder} has {odd} in it, which may be the matter: clone into a folder whose whole path is of letters, "
        "digits, - and _ only. If it fails there, too, the message there is about something else"
    )


def run(command: list[str], environment: dict[str, str], fix: str) -> None:
    """Run `command`, whose output the user sees. When it fails, exit with the command and a fix."""
    if subprocess.run(command, cwd=REPO, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"setup: failed: {' '.join(command)}\nFix: {advice(fix, REPO)}")


def lab_defaults() -> None:
    """Set JupyterLab's defaults for this environment only: no prompt for news, and widgets are saved with a notebook."""
    folder = VENV / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
    }
    (folder / "overrides.json").write_text(json.dumps(defaults, indent=2) + "\n")


def keep_bytecode(statements: list[str], environment: dict[str, str]) -> None:
    """Execute each statement in a Python of the environment, which keeps the bytecode of all that it imports.

    Installers leave that to the first import, which takes twice as long for it; and where PYTHONDONTWRITEBYTECODE is set, as
    in many containers, every import would. What cannot be imported is for `labkit doctor` to tell.
    """
    writing = {key: value for key, value in environment.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for statement in statements:
        command = [str(BIN / "python"), "-c", statement]
        subprocess.run(command, cwd=REPO, env=writing, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def main() -> None:
    """Make the environment as the pins say, unless its stamp shows that it is already."""
    if sys.version_info[:2] not in PYTHONS:
        sys.exit(f"setup: this is Python {platform.python_version()}. Fix: use Python 3.11, 3.12 or 3.13.")
    if not IN_PLACE and os.pathsep in str(REPO):
        sys.exit(
            f"setup: the path {REPO} has {os.pathsep!r} in it, and Python makes no environment there. "
            "Fix: move the clone to a folder without one."
        )
    engine = chosen_engine()
    want = fingerprint(engine)
    if STAMP.exists() and json.loads(STAMP.read_text()) == want:
        return
    STAMP.unlink(missing_ok=True)
    free = shutil.disk_usage(REPO).free / 2**30
    needed = 12 if engine == "gpu" else 6
    if free < needed and not VENV.exists():
        sys.exit(f"setup: {free:.1f} GiB free on this disk, {needed} GiB needed. Fix: free some, or clone to another disk.")
    print(
        f"setup: Python {platform.python_version()}, engine {engine}, into {VENV.name} (a few minutes the first time)",
        flush=True,
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    if not IN_PLACE:
        no_venv = "install venv for this Python (Debian, Ubuntu: apt-get install python3-venv)"
        run([sys.executable, "-m", "venv", str(VENV)], environment, no_venv)
    python = str(BIN / "python")
    online = "check the network or the package index that pip is configured with, then run the same command again"
    # Name the files relative to the repository, where `run` works: uv reads a path as a URL, which would end at a "#".
    run([python, "-m", "pip", "install", "--quiet", "-r", f"{PINS.name}/setup.txt"], environment, online)
    uv = [str(BIN / "uv"), "pip", "install", "--python", python, "--no-deps"]
    pins = ["-r", f"{PINS.name}/common.txt", "-r", f"{PINS.name}/{engine}.txt"]
    run([*uv, *torch_source(engine, environment), *pins], environment, online)
    run([*uv, "--quiet", "--editable", "."], environment, online)
    print("setup: compiling what chapters import", flush=True)
    keep_bytecode([CHAPTER, *([ENGINES[engine]] if engine in ENGINES else [])], environment)
    lab_defaults()
    STAMP.write_text(json.dumps(want, indent=2) + "\n")
    print("setup: done", flush=True)


if __name__ == "__main__":
    main()
