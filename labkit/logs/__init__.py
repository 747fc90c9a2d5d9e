"""Logs that companies have, and what they say about cost and latency.

`read_log` reads a ledger, a serving trace, or the log of a gateway, an SDK or an observability tool as one `Log` of `Call`s.
Each chapter's question is a function from a log to an `OwnNumber`: a number with its interval where it is a sample, a
sentence for a pull request, and what the log lacks (`Need`). `ask` does both for a path. `read_labels` reads the labels that
a threshold needs. `LogStream` gives the calls of a log that no memory holds, once and one by one, and `model_price` the list
price of a model as logs name it. `to_ledger` makes a ledger of a log, for `labkit.spending`, and `prices_of` finds its price
lists. `write_portal` writes the running case's log, for who has none.

    found, read_as = ask("03", "spend_logs.jsonl")
    print(found.sentence)
"""

from labkit.logs.asking import QUESTIONS, ask
from labkit.logs.basics import overview
from labkit.logs.bills import listed as model_price
from labkit.logs.bills import money, prices_of
from labkit.logs.books import to_ledger
from labkit.logs.call import FIELDS, BadLine, Call, Log
from labkit.logs.concurrency import together
from labkit.logs.cuts import cut_short, is_cut
from labkit.logs.labelled import Graded, Pairs, read_labels, routing, threshold, ungraded
from labkit.logs.latencies import waiting
from labkit.logs.named import attributed
from labkit.logs.numbers import Need, OwnNumber
from labkit.logs.passing import MAPPED, LeftOut, LogStream
from labkit.logs.per_user import nearby
from labkit.logs.portal import write_portal
from labkit.logs.readers import leaving
from labkit.logs.reading import read_log
from labkit.logs.redundant import spare
from labkit.logs.repeats import repeated
from labkit.logs.retried import wasted
from labkit.logs.sessions import memory
from labkit.logs.shared import prefixes

__all__ = [
    "FIELDS",
    "MAPPED",
    "QUESTIONS",
    "BadLine",
    "Call",
    "Graded",
    "LeftOut",
    "Log",
    "LogStream",
    "Need",
    "OwnNumber",
    "Pairs",
    "ask",
    "attributed",
    "cut_short",
    "is_cut",
    "leaving",
    "memory",
    "model_price",
    "money",
    "nearby",
    "overview",
    "prefixes",
    "prices_of",
    "read_labels",
    "read_log",
    "repeated",
    "routing",
    "spare",
    "threshold",
    "to_ledger",
    "together",
    "ungraded",
    "waiting",
    "wasted",
    "write_portal",
]
