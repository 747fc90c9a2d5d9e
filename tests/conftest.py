"""Settings that every test shares."""

import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

CHAPTER_S = 100.0  # what a chapter may cost in all, on a machine that imports vLLM in IMPORT_S
IMPORT_S = 6.0  # two cores at rest, the files in memory
IMPORTED = pytest.StashKey[dict[str, float]]()  # by chapter, how long vLLM took to import beside it

# CI machines are slow and noisy, and no test asserts an absolute time: hypothesis's own deadline would.
settings.register_profile("lab", deadline=None)
# In CI the same examples every time: a red run there must be the commit's doing. At a desk they are new every time,
# so the search for a counterexample goes on, and what it finds is kept as an @example.
settings.register_profile("ci", settings.get_profile("lab"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "lab")


@pytest.fixture
def dice() -> random.Random:
    """For tests that drive something at random by hand: the same choices in CI, new ones at a desk, printed for a repeat."""
    seed = 0 if os.environ.get("CI") else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """A place for engines of the tests' own, which neither find nor disturb the user's; short, as Unix sockets need it."""
    path = Path(tempfile.mkdtemp(prefix="lkt-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNTIME_DIR", str(path))
        yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def host(runtime: Path) -> Iterator[None]:
    """The engine host, kept until the session ends: importing vLLM costs more than what most live tests do with it."""
    if importlib.util.find_spec("vllm") is None:
        yield
        return
    from labkit.engines.host.client import _connect

    with _connect(1.0, lambda: None):
        yield


@pytest.fixture(autouse=True)
def _live(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("live"):
        request.getfixturevalue("host")


def chapter_costs(reporter: pytest.TerminalReporter) -> Counter[str]:
    """Seconds of each chapter's tests that run alone: its live run, and what the browser does with it."""
    costs: Counter[str] = Counter()
    for reports in reporter.stats.values():
        for report in reports:
            found = re.search(r"\[(\d\d_\w+)", getattr(report, "nodeid", ""))
            if found and isinstance(report, pytest.TestReport) and {"live", "browser"} & report.keywords.keys():
                costs[found[1]] += report.duration
    return costs


def too_dear(costs: Counter[str], imported: Mapping[str, float]) -> list[str]:
    """The chapters that cost more than they may, where a machine imported vLLM in so many seconds beside each."""
    return [
        name
        for name, seconds in sorted(costs.items())
        if seconds > CHAPTER_S * max(1.0, imported.get(name, IMPORT_S) / IMPORT_S)
    ]


def import_seconds() -> float:
    """How long this machine takes to import vLLM now: the yardstick, mostly Python as the chapters' own work is."""
    if importlib.util.find_spec("vllm") is None:
        return IMPORT_S
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "from labkit.engines.host.child import preload; preload()"], check=False)
    return time.perf_counter() - begin


def measured_beside(config: pytest.Config) -> list[str]:
    """The chapters that cost too much, by the yardstick as it was right after each of them: machines slow down for minutes.

    It is measured only where a chapter took longer than the limit at rest, and once for each.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not reporter:
        return []
    costs, imported = chapter_costs(reporter), config.stash.setdefault(IMPORTED, {})
    for name in too_dear(costs, {}):
        if name not in imported:
            imported[name] = import_seconds()
    return too_dear(costs, imported)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    ran = yield
    if {"live", "browser"} & item.keywords.keys():
        measured_beside(item.config)
    return ran


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A chapter that costs too much fails the run."""
    if measured_beside(session.config) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each chapter costs in all, and which costs more than it may."""
    costs, imported = chapter_costs(terminalreporter), config.stash.get(IMPORTED, {})
    if costs:
        terminalreporter.section("what a chapter costs", sep="=")
        dear = too_dear(costs, imported)
        for name, seconds in sorted(costs.items()):
            beside = (
                f"  (vLLM took {imported[name]:.1f} s to import beside it, {IMPORT_S:.0f} s at rest)"
                if name in imported
                else ""
            )
            over = f"  FAILED: more than the {CHAPTER_S:.0f} s it may cost" if name in dear else ""
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}{over}{beside}")
