"""How fast `labkit audit` goes through a log: seconds and memory for LINES lines, beside plain `json.loads` of the same.

    python -m benchmarks.audit_lines [--lines 1000000] [--prompts] [--keep FILE] [--processes N]

The lines are what a gateway writes: the response's body with its usage, times, a status, and with `--prompts` the messages
too (a system prompt of 2 kB for each of 20 features, and a question of its own). Prints one JSON line with what was measured
and on how many processors. `peak_mib` is the audit's process at its peak, and as many helpers as large as the largest one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_AUDIT = """
import json, resource, sys, time
from labkit.audit import AuditSettings, audit_logs, report_html
if __name__ == "__main__":
    processes = int(sys.argv[2])
    begin = time.perf_counter()
    found = audit_logs([sys.argv[1]], AuditSettings(processes=processes))
    page = report_html(found)
    seconds = time.perf_counter() - begin
    own, helpers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = (own.ru_maxrss + (helpers.ru_maxrss * processes if processes > 1 else 0)) / 1024
    cpu = {"own_cpu_s": own.ru_utime + own.ru_stime, "helpers_cpu_s": helpers.ru_utime + helpers.ru_stime}
    print(json.dumps({"seconds": seconds, **cpu, "peak_mib": peak, "calls": found.calls, "bad": found.files[0].bad}))
"""


def write(path: Path, lines: int, prompts: bool) -> None:
    """Write `lines` lines of a gateway's log, the same for the same arguments."""
    dice = random.Random(0)
    systems = [" ".join(dice.choice(_WORDS) for _ in range(330)) for _ in range(20)]
    with path.open("w") as file:
        for i in range(lines):
            into, out = dice.randrange(500, 4000), dice.randrange(5, 800)
            cached = dice.choice((0, 0, into // 2 // 128 * 128))
            feature = dice.randrange(20)
            row = {
                "id": f"chatcmpl-{i:032x}", "object": "chat.completion", "created": 1772442000 + i // 12,
                "model": dice.choice(("gpt-4o-2024-08-06", "gpt-4o-mini", "gpt-5-mini")),
                "user": f"u{dice.randrange(5000)}", "feature": f"feature {feature}", "status": "success",
                "choices": [{"index": 0, "finish_reason": "stop" if i % 50 else "length"}],
                "usage": {
                    "prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out,
                    "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": out // 3, "audio_tokens": 0},
                },
            }  # fmt: skip
            if prompts:
                question = " ".join(dice.choice(_WORDS) for _ in range(dice.randrange(5, 60)))
                asked = [{"role": "system", "content": systems[feature]}, {"role": "user", "content": question}]
                row["messages"] = asked
            file.write(json.dumps(row) + "\n")


_WORDS = ["return", "tent", "order", "late", "may", "the", "a", "how", "boots", "refund", "where", "is", "of", "and"]


def main() -> None:
    """Write the log, time both, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--prompts", action="store_true")
    parser.add_argument("--keep", type=Path, help="the log's file, which is written where it does not exist, and kept")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "log.jsonl"
        if not path.exists():
            write(path, given.lines, given.prompts)
        begin = time.perf_counter()
        with path.open("rb") as file:
            for line in file:
                json.loads(line)
        plain = time.perf_counter() - begin
        script = Path(folder) / "audit_it.py"
        script.write_text(_AUDIT)
        command = [sys.executable, str(script), str(path), str(given.processes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        size = path.stat().st_size / 1e6
    ratio = {"json_loads_s": plain, "ratio": told["seconds"] / plain, "megabytes": size, "processors": os.cpu_count()}
    print(json.dumps({**told, **ratio}))


if __name__ == "__main__":
    main()
