"""A chapter that costs too much fails the run, by a yardstick that is measured beside it."""

from collections import Counter

import pytest

from tests.conftest import CHAPTER_S, HOST_S, too_dear

COSTS = Counter({"00_a": CHAPTER_S - 1, "01_b": CHAPTER_S + 1, "02_c": 3 * CHAPTER_S + 1})


@pytest.mark.parametrize(
    ("started", "dear"),
    [
        (None, ["01_b", "02_c"]),
        (HOST_S / 2, ["01_b", "02_c"]),
        (2 * HOST_S, ["02_c"]),
        (3 * HOST_S, ["02_c"]),
        (4 * HOST_S, []),
    ],
)
def test_a_slower_machine_may_take_longer_and_a_faster_one_not_less(started, dear):
    assert too_dear(COSTS, started) == dear


pytest_plugins = ["pytester"]
INNER = """
import pytest

import tests.conftest as ours
from tests.conftest import pytest_sessionfinish, pytest_terminal_summary

ours.CHAPTER_S = 0.05
"""
TESTS = """
import time

import pytest


@pytest.mark.{mark}
@pytest.mark.parametrize("name", ["00_start_here"])
def test_a(name):
    time.sleep(0.1)
"""


@pytest.mark.parametrize(("mark", "status"), [("browser", 1), ("slow", 0)])
def test_the_run_fails_and_says_which(pytester, mark, status):
    pytester.makeini("[pytest]\nmarkers =\n    browser: x\n    slow: x\n    live: x\n")
    pytester.makeconftest(INNER)
    pytester.makepyfile(TESTS.format(mark=mark))
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider")
    assert result.ret == status
    assert ("FAILED: more than the" in result.stdout.str()) is (status == 1)
