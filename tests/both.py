"""Run the tests in two parts, with pytest's own options: `python tests/both.py -x tests/cost`.

First, side by side on all cores, those that need neither an engine nor a browser; then the others one after another, because
they measure time or need much memory. Fails where a part fails, and where neither has a test to run.
"""

from __future__ import annotations

import os
import subprocess
import sys

ALONE = "live or browser"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = str(min(CORES, 4))  # a container may show many more cores than it is given
PARTS = (("-n", WORKERS, "--dist", "worksteal", "-m", f"not ({ALONE})"), ("-m", ALONE))
NO_TESTS = 5


def main(options: list[str]) -> int:
    """The exit status of the two parts together."""
    ended = [
        subprocess.run([sys.executable, "-m", "pytest", "-ra", *part, *options], check=False).returncode for part in PARTS
    ]
    failed = [status for status in ended if status not in (0, NO_TESTS)]
    return failed[0] if failed else NO_TESTS if set(ended) == {NO_TESTS} else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
