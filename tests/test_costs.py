"""A chapter that costs too much fails the run, by a yardstick that is measured beside it."""

from collections import Counter

import pytest

from tests.conftest import CHAPTER_S, IMPORT_S, too_dear

COSTS = Counter({"00_a": CHAPTER_S - 1, "01_b": CHAPTER_S + 1, "02_c": 3 * CHAPTER_S + 1})


@pytest.mark.parametrize(
    ("import_s", "dear"),
    [
        (IMPORT_S / 2, ["01_b", "02_c"]),
        (2 * IMPORT_S, ["02_c"]),
        (3 * IMPORT_S, ["02_c"]),
        (4 * IMPORT_S, []),
    ],
)
def test_a_slower_machine_may_take_longer_and_a_faster_one_not_less(import_s, dear):
    assert too_dear(COSTS, dict.fromkeys(COSTS, import_s)) == dear


def test_each_chapter_is_judged_by_the_machine_as_it_was_beside_it():
    assert too_dear(COSTS, {"01_b": 2 * IMPORT_S}) == ["02_c"]
    assert too_dear(COSTS, {"02_c": 4 * IMPORT_S}) == ["01_b"]


pytest_plugins = ["pytester"]
INNER = """
import pytest

import tests.conftest as ours
from tests.conftest import pytest_runtest_protocol, pytest_sessionfinish, pytest_terminal_summary

ours.CHAPTER_S = 0.05
measured = []


def import_seconds():
    measured.append(1)
    assert len(measured) == 1, "measured once, where a chapter was slow"
    return {import_s}


ours.import_seconds = import_seconds
"""
TESTS = """
import time

import pytest


@pytest.mark.{mark}
@pytest.mark.parametrize("name", ["00_start_here"])
def test_a(name):
    time.sleep(0.1)
"""


@pytest.mark.parametrize(("mark", "import_s", "status"), [("browser", 1, 1), ("browser", 60, 0), ("slow", 1, 0)])
def test_the_run_fails_and_says_which(pytester, mark, import_s, status):
    pytester.makeini("[pytest]\nmarkers =\n    browser: x\n    slow: x\n    live: x\n")
    pytester.makeconftest(INNER.format(import_s=import_s))
    pytester.makepyfile(TESTS.format(mark=mark))
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider")
    assert result.ret == status
    assert ("FAILED: more than the" in result.stdout.str()) is (status == 1)
