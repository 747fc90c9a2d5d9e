"""A gateway's log, with a line that is there twice, and what its repeats cost."""

import json
import tempfile
from pathlib import Path

from labkit.audit import AuditSettings, audit_logs
from labkit.cost import self_defined

lines = []
for second in range(100):
    asked = [{"role": "user", "content": f"Where is order {second % 50}?"}]
    usage = {"prompt_tokens": 2000, "completion_tokens": 100, "total_tokens": 2100}
    line = {"id": f"r{second}", "timestamp": 1772442000 + second, "model": "shop", "messages": asked, "usage": usage}
    lines.append(json.dumps(line))
path = Path(tempfile.mkdtemp()) / "gateway.jsonl"
path.write_text("\n".join([*lines, lines[-1]]))

found = audit_logs([path], AuditSettings(prices={"shop": self_defined("shop", "2.5", "10")}))
print(found.cost.total.normalize(), "USD in the log")
best = found.plan[0]
print(best.advice.remedy.name, "saves", best.low.normalize(), "of", found.cost.total.normalize())
print(found.files[0].bad, "bad lines,", found.files[0].copies, "copies")
