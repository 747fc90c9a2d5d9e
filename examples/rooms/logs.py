"""The same log as a gateway writes it, asked three questions. Needs the extra "analysis"."""

import json
import tempfile
from pathlib import Path

from labkit import logs

SHOP = {"role": "system", "content": "You work at a shop. " * 400}
path = Path(tempfile.mkdtemp()) / "gateway.jsonl"
with path.open("w") as file:
    for second in range(100):
        asked = [SHOP, {"role": "user", "content": f"Where is order {second % 50}?"}]
        times = {"startTime": 1772442000 + second, "endTime": 1772442000 + second + 2}
        usage = {"prompt_tokens": 2000, "completion_tokens": 100, "total_tokens": 2100}
        file.write(json.dumps({**times, "model": "gpt-4o", "messages": asked, "response": {"usage": usage}}) + "\n")

log = logs.read_log(path)
for ask in (logs.prefixes, logs.repeated, logs.together):
    found = ask(log)
    print(found.number, found.unit, [need.lacks for need in found.needs])
