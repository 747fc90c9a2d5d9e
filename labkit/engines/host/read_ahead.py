"""Reads the files of an import from the disk before the import comes to them.

On a cold disk, importing vLLM waits for thousands of small reads, one after the other, while the processor idles. So a host
that has imported vLLM notes which files that took and which parts of the large libraries, in order. The next host lets a
process of its own read them ahead of the import. What is in memory already costs next to nothing.
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.engines.host.child import die_with_parent

# Two parts of a library with less between them than this are read as one.
_GAP = 256 << 10
_PRESENT_OR_SWAPPED = 0b11 << 62  # of an entry of /proc/PID/pagemap


@dataclass(frozen=True, slots=True)
class Part:
    """`length` bytes of the file `path` from `offset` on; 0 bytes are the whole file."""

    path: str
    offset: int = 0
    length: int = 0


@contextlib.contextmanager
def reading_ahead(notes: Path) -> Iterator[int | None]:
    """While the block runs, a child process reads what the notes list; it gives its pid, None where there are no notes.

    Where there are none for this environment, they are written after the block. Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        yield None
        return
    parts = read_notes(notes)
    if parts is None:
        yield None
        write_notes(notes, [*_imported(), *_sources_of_transformers()])
        return
    parent = os.getpid()
    reader = os.fork()
    if not reader:
        _read_and_exit(parts, parent)
    try:
        yield reader
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)


def read_notes(notes: Path) -> list[Part] | None:
    """The parts that were noted; None where there are no notes, or those of another environment."""
    try:
        written = json.loads(notes.read_text(encoding="utf-8"))
        return [Part(*part) for part in written["parts"]] if written["environment"] == _environment() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_notes(notes: Path, parts: Iterable[Part]) -> None:
    """Note `parts` for the next host of this environment; nothing is noted where the folder cannot be written."""
    with contextlib.suppress(OSError):
        listed = [[part.path, part.offset, part.length] for part in dict.fromkeys(parts)]
        notes.parent.mkdir(parents=True, exist_ok=True)
        unfinished = notes.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"environment": _environment(), "parts": listed}), encoding="utf-8")
        unfinished.replace(notes)


def read(part: Part, into: bytearray) -> int:
    """Read `part` by way of the buffer `into` and return its bytes; a file that is gone is left out.

    One read at a time: requests to read all of it at once would stand in line before those of the import itself.
    """
    done = 0
    with contextlib.suppress(OSError):
        descriptor = os.open(part.path, os.O_RDONLY)
        try:
            view = memoryview(into)
            while not part.length or done < part.length:
                wanted = min(len(into), part.length - done) if part.length else len(into)
                got = os.preadv(descriptor, [view[:wanted]], part.offset + done)
                if not got:
                    break
                done += got
        finally:
            os.close(descriptor)
    return done


def bytes_read(pid: int) -> int:
    """How many bytes the process has had read from the disk; 0 where nobody counts them, or it is gone."""
    try:
        counters = dict(line.split(": ") for line in Path("/proc", str(pid), "io").read_text().splitlines())
        return int(counters["read_bytes"])
    except (OSError, ValueError, KeyError):
        return 0


def _environment() -> list[object]:
    """Changes when a package is installed or removed."""
    return [sys.prefix, sys.version, *(Path(path).stat().st_mtime_ns for path in sys.path if path.endswith("site-packages"))]


def _read_and_exit(parts: Iterable[Part], parent: int) -> None:
    """The whole life of the child process."""
    try:
        die_with_parent(parent)
        # The clients' connections are the host's alone: a copy held here would hide its end from them.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        buffer = bytearray(1 << 20)
        for part in parts:
            read(part, buffer)
    finally:
        os._exit(0)


def _imported() -> Iterator[Part]:
    """The files that this process has imported so far, in order, each library before the first module of its package."""
    libraries: dict[str, list[Part]] = {}
    for part in _mapped():
        libraries.setdefault(_package(part.path), []).append(part)
    for name in ("", *sys.modules):
        package = name.partition(".")[0]
        yield from libraries.pop(package, ())
        # Not getattr: a module of transformers imports something when it is asked for an attribute.
        module = getattr(sys.modules.get(name), "__dict__", {})
        files = (module.get("__cached__"), module.get("__file__"))
        file = next((file for file in files if isinstance(file, str) and os.path.exists(file)), "")
        if file and not file.endswith(".so"):
            yield Part(file)
    for rest in libraries.values():
        yield from rest


def _package(path: str) -> str:
    """The package that a library comes with: "numpy" for …/site-packages/numpy.libs/x.so, "" for one of the system."""
    _, found, inside = path.partition("/site-packages/")
    return inside.split("/")[0].split(".")[0] if found else ""


def _mapped() -> Iterator[Part]:
    """The parts of the mapped libraries that this process has touched."""
    page = mmap.PAGESIZE
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for line in maps.read().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) < 6 or ".so" not in os.path.basename(fields[5]):
                continue
            begin, end = (int(address, 16) for address in fields[0].split("-"))
            pagemap.seek(begin // page * 8)
            entries = array.array("Q", pagemap.read((end - begin) // page * 8))
            touched = [number for number, entry in enumerate(entries) if entry & _PRESENT_OR_SWAPPED]
            yield from _joined(fields[5], int(fields[2], 16), touched, page)


def _joined(path: str, offset: int, pages: list[int], page: int) -> Iterator[Part]:
    """`pages`, numbered from `offset` on, as parts; those that lie close together are one."""
    first = last = None
    for number in pages:
        if first is None or last is None:
            first = number
        elif (number - last) * page > _GAP:
            yield Part(path, offset + first * page, (last + 1 - first) * page)
            first = number
        last = number
    if first is not None and last is not None:
        yield Part(path, offset + first * page, (last + 1 - first) * page)


def _sources_of_transformers() -> Iterator[Part]:
    """transformers opens the source of each of its models, to know what it exports."""
    file = getattr(sys.modules.get("transformers"), "__dict__", {}).get("__file__")
    if file:
        for source in sorted(Path(file).parent.glob("models/*/*.py")):
            yield Part(str(source))
