"""Logs that companies have, and what they say about cost and latency.

`read_log` reads a ledger, a serving trace, or the log of a gateway, an SDK or an observability tool as one `Log` of `Call`s.
Each chapter's question is a function from a log to an `OwnNumber`: a number with its interval where it is a sample, a
sentence for a pull request, and what the log lacks (`Need`). `ask` does both for a path. `read_labels` reads the labels that
a threshold needs. `write_portal` writes the running case's log, for who has none.

    found, read_as = ask("03", "spend_logs.jsonl")
    print(found.sentence)
"""

from labkit.logs.asking import QUESTIONS, ask
from labkit.logs.basics import overview
from labkit.logs.bills import money
from labkit.logs.call import FIELDS, BadLine, Call, Log
from labkit.logs.concurrency import together
from labkit.logs.cuts import cut_short
from labkit.logs.labelled import Graded, Pairs, read_labels, routing, threshold, ungraded
from labkit.logs.latencies import waiting
from labkit.logs.numbers import Need, OwnNumber
from labkit.logs.portal import write_portal
from labkit.logs.readers import leaving
from labkit.logs.reading import read_log
from labkit.logs.redundant import spare
from labkit.logs.repeats import repeated
from labkit.logs.sessions import memory
from labkit.logs.shared import prefixes

__all__ = [
    "FIELDS",
    "QUESTIONS",
    "BadLine",
    "Call",
    "Graded",
    "Log",
    "Need",
    "OwnNumber",
    "Pairs",
    "ask",
    "cut_short",
    "leaving",
    "memory",
    "money",
    "overview",
    "prefixes",
    "read_labels",
    "read_log",
    "repeated",
    "routing",
    "spare",
    "threshold",
    "together",
    "ungraded",
    "waiting",
    "write_portal",
]
