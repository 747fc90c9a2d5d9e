"""A stack goes into a file, is read by people, and comes back equal."""

import tempfile
from pathlib import Path

from labkit import caches, engines, ledger, request, stacks, streaming

names = {"small": engines.ScriptedEngine()}
levers = ledger.Booked(ledger.Ledger(":memory:")), caches.ResponseCache(caches.Store()), streaming.Paced(8)
desk = request.stack(*levers, engine=names["small"])
with tempfile.TemporaryDirectory() as folder:
    stacks.save(desk, Path(folder) / "desk.yaml", names=names)
    print((Path(folder) / "desk.yaml").read_text())
    again = stacks.load(Path(folder) / "desk.yaml", names=names)
    print(stacks.to_data(again, names=names) == stacks.to_data(desk, names=names))
