"""Our rules of FOCUS on a file that tokencur wrote, and the columns in which the two exports differ.

tokencur (MIT) turns coding agents' logs into FOCUS rows. It is installed in an environment of its own and writes a CSV
there; this script only reads that file:

    python benchmarks/exports_focus_peer.py tokencur.csv

The 12 rows that tokencur 0.11.1 made of three calls (30 November 2026) have the 23 mandatory columns and break no rule, and
no column of FOCUS in our export is missing in its. It has a row for each kind of token, with its unit price. Usage that has
no price it leaves out of the file and names on the screen, where ours has a row that says so.
"""

from __future__ import annotations

import sys
from collections import Counter

from labkit.exports import MANDATORY, check_focus, focus_rows, read_focus_csv
from labkit.ledger import Ledger, Row


def main(path: str) -> None:
    """Print what the peer's file breaks, and whose columns are missing in the other."""
    theirs = read_focus_csv(path)
    with Ledger(":memory:") as ledger:
        ledger.append(Row(provider="lab", started_unix=0.0))
        ours = focus_rows(ledger)
    columns = set(theirs[0]) if theirs else set()
    print(f"{len(theirs)} rows, {len(columns & set(MANDATORY))} of {len(MANDATORY)} mandatory columns")
    print("only theirs:", ", ".join(sorted(columns - set(ours[0]))) or "none")
    print("only ours:", ", ".join(sorted(name for name in set(ours[0]) - columns if not name.startswith("x_"))) or "none")
    told = Counter(f"{each.column} {each.problem}" for each in check_focus(theirs))
    for problem, count in told.most_common():
        print(f"{count:6d} × {problem}")


if __name__ == "__main__":
    main(sys.argv[1])
