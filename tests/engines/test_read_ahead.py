"""What an import reads is noted, and read ahead of the next one. Without notes, an import goes on as ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.engines.host.read_ahead import Part, bytes_read, read, read_notes, reading_ahead, write_notes

from .conftest import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hosts read ahead on Linux only")

LEARN = """
import sys
from pathlib import Path
from labkit.engines.host.read_ahead import reading_ahead
with reading_ahead(Path(sys.argv[1])) as reader:
    assert reader is None
    import plistlib, sqlite3
    sqlite3.connect(":memory:").execute("select 1")
"""


def test_the_first_import_notes_what_it_took(tmp_path: Path) -> None:
    notes = tmp_path / "below" / "notes.json"
    subprocess.run([sys.executable, "-c", LEARN, str(notes)], check=True)
    parts = read_notes(notes)
    assert parts
    assert len(set(parts)) == len(parts)
    names = [Path(part.path).name.partition(".")[0] for part in parts]
    assert "plistlib" in names
    assert names.index("plistlib") > names.index("argparse"), "in the order of the import"
    library = [part for part in parts if "_sqlite3" in part.path]
    assert library, "and what is no module of Python's"
    page = os.sysconf("SC_PAGESIZE")
    for path in {part.path for part in parts}:
        pages = -(-os.path.getsize(path) // page)
        assert sum(part.length for part in parts if part.path == path) <= (pages + 10) * page, "a library's parts, once each"


def test_a_part_is_read_and_no_more(tmp_path: Path) -> None:
    file, buffer = tmp_path / "library", bytearray(1000)
    file.write_bytes(bytes(2500))
    assert read(Part(str(file)), buffer) == 2500
    assert read(Part(str(file), 500, 1700), buffer) == 1700
    assert read(Part(str(file), 2000, 5000), buffer) == 500
    assert read(Part(str(tmp_path / "gone")), buffer) == 0
    assert read(Part(str(tmp_path)), buffer) == 0


def test_notes_of_another_environment_and_garbage_are_none(tmp_path: Path) -> None:
    notes, parts = tmp_path / "notes.json", [Part("/a", 4096, 8192), Part("/b"), Part("/a", 4096, 8192)]
    write_notes(notes, parts)
    assert read_notes(notes) == parts[:2]
    written = json.loads(notes.read_text())
    for other in ({**written, "environment": ["/another"]}, {"environment": written["environment"]}, [], 7, None):
        notes.write_text(json.dumps(other))
        assert read_notes(notes) is None
    notes.write_bytes(b"\xff")
    assert read_notes(notes) is None
    write_notes(notes / "below a file", parts)  # says nothing


def test_a_reader_works_beside_the_import_and_is_gone_after_it(tmp_path: Path) -> None:
    """It holds none of the host's connections: a client sees the host's end at once. A pipe's end shows when it has read."""
    notes, pipe = tmp_path / "notes.json", tmp_path / "pipe"
    os.mkfifo(pipe)
    write_notes(notes, [Part(str(pipe))])
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, reading_ahead(notes) as reader:
        assert reader is not None
        assert Path("/proc", str(reader)).exists()
        eventually(lambda: len(os.listdir(f"/proc/{reader}/fd")) <= 4, "only its standard streams are left to it")
        theirs.close()
        assert ours.recv(1) == b""
    assert not Path("/proc", str(reader)).exists()


def test_an_import_that_fails_leaves_no_notes_and_no_reader(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    with pytest.raises(ImportError), reading_ahead(notes):
        raise ImportError
    assert not notes.exists()
    write_notes(notes, [])
    with pytest.raises(ImportError), reading_ahead(notes) as reader:
        raise ImportError
    assert not Path("/proc", str(reader)).exists()


def test_the_bytes_of_a_process_that_is_gone_are_none() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert bytes_read(done.pid) == 0
    assert bytes_read(os.getpid()) >= 0
