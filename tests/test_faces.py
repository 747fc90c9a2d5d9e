"""A room is entered by its face: outside of it, only what its `__init__` exports is imported."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import labkit

ROOT = Path(labkit.__file__).parents[1]
ROOMS = sorted(m.name for m in pkgutil.iter_modules(labkit.__path__) if m.ispkg)
FACES = {f"labkit.{room}" for room in ROOMS} | {
    "labkit.engines.host",  # its own process; `labkit.kvcache` reads the blocks of the engine in it
    "labkit.engines.modelled",
    "labkit.workbook.chapters",
}
"""Where a room may be entered. A room within a room has a face of its own."""
CHAPTER = re.compile(r"labkit\.workbook\.chapters\.(c\d\d|builds\.b\d\d)")  # the faces of a notebook's exercises
INNER = {"benchmarks/semantic_cache.py"}  # times the inner steps of a look-up, one by one


def readers():
    """Every file that uses the package, with the rooms that it is inside of."""
    for folder in ("labkit", "notebooks/src", "benchmarks", "binder", "examples", "docs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if str(path.relative_to(ROOT)) in INNER:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            inside = {face for face in FACES if module == face or module.startswith(f"{face}.")}
            if path.parent.name == "src":
                inside.add(f"labkit.workbook.chapters.c{path.name[:2]}")  # its other half
            yield path, inside


def imported(path):
    """What a file imports of labkit: (line, module, name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "labkit":
            for alias in node.names:
                yield node.lineno, node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("labkit."):
                    yield node.lineno, alias.name, None


def past_the_face(path, inside):
    for line, module, name in imported(path):
        whole = f"{module}.{name}"
        entered = module if module in FACES or module == "labkit" else None
        if module in inside or (module == "labkit" and name in ROOMS):
            continue
        rooms = [face for face in FACES if module == face or module.startswith(f"{face}.")]
        if any(face in inside for face in rooms) or CHAPTER.fullmatch(module):
            continue
        if entered is None:
            yield f"{path.relative_to(ROOT)}:{line} imports {whole} past the face"
        elif entered != "labkit" and name is not None and name not in importlib.import_module(entered).__all__:
            yield f"{path.relative_to(ROOT)}:{line} imports {name}, which {entered} does not export"


def test_rooms_are_entered_by_their_faces_only():
    found = [fault for path, inside in readers() for fault in past_the_face(path, inside)]
    assert not found, "\n".join(["", *found])


def test_the_check_sees_an_import_past_a_face(tmp_path, monkeypatch):
    monkeypatch.setattr("test_faces.ROOT", tmp_path)
    path = tmp_path / "x.py"
    path.write_text("from labkit.caches.store import Store\nfrom labkit.caches import Store, nothing_of_the_kind\n")
    first, second = past_the_face(path, set())
    assert "labkit.caches.store.Store past the face" in first
    assert "nothing_of_the_kind, which labkit.caches does not export" in second


@pytest.mark.parametrize("face", sorted(FACES))
def test_no_exported_name_hides_a_module(face):
    room = importlib.import_module(face)
    modules = {m.name for m in pkgutil.iter_modules(room.__path__)}
    hidden = [name for name in room.__all__ if name in modules and not inspect.ismodule(getattr(room, name))]
    assert not hidden, f"{face} exports {hidden}, which are modules there too: `import {face}.{hidden[0]}` gives which?"


def test_no_name_has_two_meanings():
    """The same name from two faces is the same thing."""
    seen = {}
    assert len(FACES) > 15
    for face in sorted(FACES):
        room = importlib.import_module(face)
        for name in room.__all__:
            thing = getattr(room, name)
            first, known = seen.setdefault(name, (face, thing))
            assert known is thing, f"{name} is one thing in {first} and another in {face}"
