"""An audit of the logs that a company has: where the money goes, and which lever of the book would save how much of it.

`audit_logs(paths, settings) -> Audited` goes through the logs once and holds no more of them than sums, hashes and samples.
Every `Advice` is a range with its method, its effort and its chapter, or says what the log lacks. The `plan` orders them by
dollars for the effort, each on what those before it left, so it never adds up the same tokens twice. `report_html(audited)`
is one file that needs no network and holds no prompt, unless the settings ask for some. `read_prices(path)` reads one's own
prices. Nothing leaves the machine.

    found = audit_logs(["spend_logs.jsonl"], AuditSettings(patient=("nightly",)))
    Path("report.html").write_text(report_html(found))
"""

from labkit.audit.advice import Advice, Fact, PlanLine, Remedy
from labkit.audit.auditing import Audited, AuditSettings, FileRead, audit_logs, read_prices
from labkit.audit.bill import LogSpan, SpendingGroup
from labkit.audit.report import in_short, report_html

__all__ = [
    "Advice",
    "AuditSettings",
    "Audited",
    "Fact",
    "FileRead",
    "LogSpan",
    "PlanLine",
    "Remedy",
    "SpendingGroup",
    "audit_logs",
    "in_short",
    "read_prices",
    "report_html",
]
