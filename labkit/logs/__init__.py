"""Logs that companies have, and what they say about cost and latency.

`read_log` reads a ledger, a serving trace, or the log of a gateway, an SDK or an observability tool as one `Log` of `Call`s.
Each chapter's question is a function from a log to a `Finding`: a number with its interval where it is a sample, a sentence
for a pull request, and what the log lacks (`Need`). `ask` does both for a path. `read_labels` reads the labels that a
threshold needs. `write_portal` writes the running case's log, for who has none.

    finding, read_as = ask("03", "spend_logs.jsonl")
    print(finding.sentence)
"""

from labkit.logs.asking import QUESTIONS, ask
from labkit.logs.call import FIELDS, BadLine, Call, Log
from labkit.logs.finding import Finding, Need
from labkit.logs.labelled import Graded, Pairs, read_labels, routing, threshold, ungraded
from labkit.logs.leaving import leaving
from labkit.logs.memory import memory
from labkit.logs.money import money
from labkit.logs.overview import overview
from labkit.logs.portal import write_portal
from labkit.logs.prefixes import prefixes
from labkit.logs.reading import read_log
from labkit.logs.repeated import repeated
from labkit.logs.together import together
from labkit.logs.waiting import waiting

__all__ = [
    "FIELDS",
    "QUESTIONS",
    "BadLine",
    "Call",
    "Finding",
    "Graded",
    "Log",
    "Need",
    "Pairs",
    "ask",
    "leaving",
    "memory",
    "money",
    "overview",
    "prefixes",
    "read_labels",
    "read_log",
    "repeated",
    "routing",
    "threshold",
    "together",
    "ungraded",
    "waiting",
    "write_portal",
]
