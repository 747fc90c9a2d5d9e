"""Resolve the `.in` files into the pins that a set-up installs: `make pins`.

One resolution covers Linux, macOS and Windows and Python 3.11 to 3.13; markers keep them apart. What labkit itself needs
goes to `common.txt`; what only an engine needs to `cpu.txt`, `gpu.txt` or `none.txt`, one of which is installed beside it.
No pin names an address: torch's CPU build comes from wherever the installing machine finds it.

Existing pins are kept unless `--upgrade` is given.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
PYTHONS = ("3.11.0", "3.11.9", "3.12.0", "3.12.9", "3.13.0", "3.13.9")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
LINUX = PLATFORMS[:2]
SHORT_MARKERS = (
    "sys_platform == 'linux'",
    "sys_platform == 'win32'",
    "sys_platform == 'darwin'",
    "sys_platform != 'win32'",
    "sys_platform != 'linux'",
    "platform_machine == 'x86_64'",
    "platform_machine == 'aarch64'",
    "python_version == '3.11'",
    "python_version >= '3.12'",
    "python_version == '3.12'",
    "python_version < '3.13'",
    "python_version >= '3.13'",
    "python_full_version < '3.11.5'",
    "python_full_version >= '3.11.5'",
)
# vLLM names these three but runs without them, and their builds do not match the CPU torch: imported with it, they fail.
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
# torch's CPU build is published outside the package index, so it is left out of the resolution: what it needs stands here.
TORCH = "2.13.0"
TORCH_NEEDS = ("filelock", "typing-extensions>=4.10", "sympy", "networkx", "jinja2", "fsspec", "setuptools<82")


def environments(platforms: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """The marker environments of every supported Python on `platforms`."""
    for system, machine in platforms:
        for python in PYTHONS:
            yield {
                **default_environment(),
                "sys_platform": system,
                "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system],
                "os_name": "nt" if system == "win32" else "posix",
                "platform_machine": machine,
                "python_version": python.rsplit(".", 1)[0],
                "python_full_version": python,
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def shortened(line: str, platforms: Iterable[tuple[str, str]]) -> str | None:
    """`line` with the shortest marker that means the same on `platforms`; None where it never applies."""
    requirement = Requirement(line)
    pin = f"{requirement.name}{requirement.specifier}"
    if requirement.marker is None:
        return pin
    grid = list(environments(platforms))
    truth = [requirement.marker.evaluate(environment) for environment in grid]
    if all(truth):
        return pin
    if not any(truth):
        return None
    for short in SHORT_MARKERS:
        if [Marker(short).evaluate(environment) for environment in grid] == truth:
            return f"{pin} ; {short}"
    return f"{pin} ; {requirement.marker}"


def resolve(
    inputs: Iterable[str], constraints: Iterable[str], *, platforms: tuple[tuple[str, str], ...], without: Iterable[str]
) -> list[str]:
    """uv's universal resolution of `inputs`, one shortened pin a line."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        splits = [f"sys_platform == '{s}' and platform_machine == '{m}' and python_version < '3.14'" for s, m in platforms]
        (work / "pyproject.toml").write_text(
            '[project]\nname = "pins"\nversion = "0"\nrequires-python = ">=3.11,<3.14"\n'
            "[tool.uv]\nenvironments = [" + ", ".join(f'"{split}"' for split in splits) + "]\n"
        )
        (work / "all.in").write_text("\n".join(inputs) + "\n")
        (work / "constraints.txt").write_text("\n".join(constraints) + "\n")
        (work / "overrides.txt").write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in without))
        command = [
            "uv",
            "pip",
            "compile",
            "--universal",
            "--python-version",
            "3.11",
            "--no-header",
            "--no-annotate",
            "--quiet",
        ]
        command += ["--overrides", "overrides.txt", "-c", "constraints.txt", "all.in"]
        done = subprocess.run(command, cwd=work, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"resolve: uv found no set of versions\n{done.stderr}")
    lines = (shortened(line, platforms) for line in done.stdout.splitlines() if line)
    return sorted(line for line in lines if line is not None)


def read(path: Path) -> list[str]:
    """The requirement lines of `path`, without comments; empty where it does not exist."""
    if not path.exists():
        return []
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def write(name: str, what: str, lines: Iterable[str]) -> None:
    """Write the pins file `name`."""
    (HERE / name).write_text(f"# {what} Written by `make pins`.\n" + "".join(f"{line}\n" for line in lines))


def only_in(lines: list[str], common: list[str]) -> list[str]:
    """The pins of `lines` that `common` does not hold for the same machines."""
    everywhere = {line for line in common if ";" not in line}
    return [line for line in lines if line not in common and line.split(" ;")[0] not in everywhere]


def main(upgrade: bool) -> None:
    """Resolve everything and write the four pins files."""
    own = [*read(HERE / "labkit.in"), *TORCH_NEEDS]
    no_torch = (*LEFT_OUT, "torch")
    kept = {} if upgrade else {name: read(HERE / f"{name}.txt") for name in ("common", "cpu", "gpu")}
    kept = {name: [line for line in lines if not line.startswith("torch==")] for name, lines in kept.items()}
    common_kept = kept.get("common", [])
    cpu = resolve([*own, *read(HERE / "cpu.in")], [*common_kept, *kept.get("cpu", [])], platforms=LINUX, without=no_torch)
    common = resolve(own, [*common_kept, *(line for line in cpu if ";" not in line)], platforms=PLATFORMS, without=no_torch)
    gpu = resolve(
        [*own, *read(HERE / "gpu.in"), f"torch=={TORCH}"],
        [*common, *kept.get("gpu", [])],
        platforms=LINUX,
        without=LEFT_OUT,
    )
    write("common.txt", "What every machine installs.", common)
    write("cpu.txt", "vLLM and torch without a GPU (Linux).", [*only_in(cpu, common), f"torch=={TORCH}+cpu"])
    write("gpu.txt", "vLLM and torch on an NVIDIA GPU (Linux).", only_in(gpu, common))
    write(
        "none.txt",
        "No engine here (macOS, Windows, or by choice): replay, or any OpenAI-compatible endpoint.",
        [f"torch=={TORCH}+cpu ; sys_platform == 'linux'", f"torch=={TORCH} ; sys_platform != 'linux'"],
    )


if __name__ == "__main__":
    main(upgrade="--upgrade" in sys.argv[1:])
