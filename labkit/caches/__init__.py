"""What need not be computed again.

The engine keeps the keys and values of prompts it has read: `PrefixCache` predicts, request by request, how many tokens vLLM
will serve from there, and `block_hits` what a cache of some size would have served of a trace.

API providers sell the same: `provider.serve` says which tokens of a stream of calls are read from a cache there, and which
are written, by the provider's `RULES`; and `lint` finds what in a template keeps prompts from sharing a beginning.

Whole answers are kept by one set of rules, whichever cache keeps them: `fingerprint` (what was asked), `Scope` (who may see
it) and `CacheControl` (how long it holds), all enforced by one `Store`. `response_cache` repeats answers to questions asked
before, word for word, `single_flight` shares one stream among those who ask at the same time, and `savings` reads from the
ledger what both were worth.
"""

from labkit.caches.prefix import Hits, PrefixCache, block_hits
from labkit.caches.response import response_cache, savings
from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.caches.singleflight import Flights, single_flight
from labkit.caches.store import CacheError, Entry, Lookup, Removal, Stats, Store, Ticket

__all__ = [
    "CacheControl",
    "CacheError",
    "Entry",
    "Flights",
    "Hits",
    "Lookup",
    "PrefixCache",
    "Removal",
    "Scope",
    "Stats",
    "Store",
    "Ticket",
    "block_hits",
    "fingerprint",
    "response_cache",
    "savings",
    "scope_of",
    "single_flight",
]
