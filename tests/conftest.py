"""Settings that every test shares."""

import importlib.util
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

CHAPTER_S = 100  # on a quiet machine of two cores

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each chapter costs in all: its live run, and what the browser does with it."""
    costs: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = re.search(r"\[(\d\d_\w+)", getattr(report, "nodeid", ""))
            if found and isinstance(report, pytest.TestReport):
                costs[found[1]] += report.duration
    if sum(costs.values()) > 10:  # chapters were run
        terminalreporter.section("what a chapter costs", sep="=")
        for name, seconds in sorted(costs.items()):
            over = f"  more than the {CHAPTER_S} s it may" if seconds > CHAPTER_S else ""
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}{over}")
