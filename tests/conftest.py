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
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

CHAPTER_S = 100.0  # what a chapter may cost in all, on a machine that imports vLLM in IMPORT_S
IMPORT_S = 6.0  # two cores at rest, the files in memory
IMPORTED = pytest.StashKey[float]()

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


def too_dear(costs: Counter[str], import_s: float) -> list[str]:
    """The chapters that cost more than they may, on a machine that imports vLLM in so many seconds."""
    return [name for name, seconds in sorted(costs.items()) if seconds > CHAPTER_S * max(1.0, import_s / IMPORT_S)]


def import_seconds() -> float:
    """How long this machine takes to import vLLM now: the yardstick, mostly Python as the chapters' own work is."""
    if importlib.util.find_spec("vllm") is None:
        return IMPORT_S
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "from labkit.engines.host.child import preload; preload()"], check=False)
    return time.perf_counter() - begin


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A chapter that costs too much fails the run. The yardstick is measured only where one may."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter or not too_dear(costs := chapter_costs(reporter), IMPORT_S):
        return
    session.config.stash[IMPORTED] = import_seconds()
    if session.exitstatus == 0 and too_dear(costs, session.config.stash[IMPORTED]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each chapter costs in all, and which costs more than it may."""
    costs, import_s = chapter_costs(terminalreporter), config.stash.get(IMPORTED, IMPORT_S)
    if costs:
        terminalreporter.section("what a chapter costs", sep="=")
        dear = too_dear(costs, import_s)
        for name, seconds in sorted(costs.items()):
            over = f"  FAILED: more than the {CHAPTER_S:.0f} s it may cost" if name in dear else ""
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}{over}")
        if IMPORTED in config.stash:
            terminalreporter.write_line(f"{import_s:6.1f} s  to import vLLM just now ({IMPORT_S:.0f} s at rest)")
