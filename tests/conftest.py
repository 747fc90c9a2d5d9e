"""Settings that every test shares."""

import importlib.util
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

CHAPTER_S = 100  # what a chapter may cost in all, on a machine that starts the engine host in HOST_S
HOST_S = 9.0  # a quiet machine of two cores, its files in memory
HOST_STARTED = pytest.StashKey[float]()

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
def host(runtime: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """The engine host, kept until the session ends: importing vLLM costs more than what most live tests do with it.

    How long it takes to start is the yardstick for what chapters cost on this machine.
    """
    if importlib.util.find_spec("vllm") is None:
        yield
        return
    from labkit.engines.host.client import _connect

    begin = time.perf_counter()
    with _connect(1.0, lambda: None):
        request.config.stash[HOST_STARTED] = time.perf_counter() - begin
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


def too_dear(costs: Counter[str], started: float | None) -> list[str]:
    """The chapters that cost more than they may; on a machine that starts a host more slowly they may cost more."""
    slower = max(1.0, (started or HOST_S) / HOST_S)
    return [name for name, seconds in sorted(costs.items()) if seconds > CHAPTER_S * slower]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A chapter that costs too much fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        reporter
        and session.exitstatus == 0
        and too_dear(chapter_costs(reporter), session.config.stash.get(HOST_STARTED, None))
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each chapter costs in all, and which costs more than it may."""
    costs, started = chapter_costs(terminalreporter), config.stash.get(HOST_STARTED, None)
    if costs:
        terminalreporter.section("what a chapter costs", sep="=")
        dear = too_dear(costs, started)
        for name, seconds in sorted(costs.items()):
            over = f"  FAILED: more than the {CHAPTER_S} s it may cost" if name in dear else ""
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}{over}")
        if started is not None:
            terminalreporter.write_line(
                f"{started:6.1f} s  to start the engine host, the yardstick ({HOST_S:.0f} s when quiet)"
            )
