"""One short script for each room: it runs, prints what it should, and is read in one look."""

import ast
import os
import pkgutil

import pytest

import labkit
from tests.examples.rooms import PRINTS, SCRIPTS, check, extra_of, run
from tests.extras.declared import python_with

LINES = 15  # of code: docstring, imports and blank lines apart
WITHOUT = {"cli", "data", "extras"}  # a command, files, and what the other scripts show when an extra is missing


def lines_of_code(path):
    """The lines on which a statement stands or goes on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    code = [s for s in tree.body[1:] if not isinstance(s, ast.Import | ast.ImportFrom)]
    text = path.read_text(encoding="utf-8").splitlines()
    return sum(bool(text[number - 1].strip()) for s in code for number in range(s.lineno, s.end_lineno + 1))


def test_every_room_has_one():
    rooms = {found.name for found in pkgutil.iter_modules(labkit.__path__) if found.ispkg}
    assert {path.stem for path in SCRIPTS.glob("*.py")} == rooms - WITHOUT == set(PRINTS)


@pytest.mark.parametrize("room", sorted(PRINTS))
def test_it_is_read_in_one_look(room):
    assert lines_of_code(SCRIPTS / f"{room}.py") <= LINES


@pytest.mark.parametrize("room", sorted(PRINTS))
def test_it_prints_what_it_should_with_no_more_than_its_extra_brings(room, tmp_path):
    path = SCRIPTS / f"{room}.py"
    done = run([*python_with(tmp_path, extra_of(path)), str(path)], dict(os.environ))
    assert done.returncode == 0, done.stderr
    check(room, done.stdout)


def test_one_that_prints_something_else_is_seen():
    with pytest.raises(AssertionError):
        check("latency", "prefill of 1,000: 0.112 s\n")
    with pytest.raises(AssertionError):
        check("workbook", "HBox 3\n")


def test_most_need_no_extra():
    assert sum(not extra_of(path) for path in SCRIPTS.glob("*.py")) >= 15
