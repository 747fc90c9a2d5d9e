"""What need not be computed again.

The engine keeps the keys and values of prompts it has read: `PrefixCache` predicts, request by request, how many tokens vLLM
will serve from there, and `block_hits` what a cache of some size would have served of a trace.

API providers sell the same: `provider.serve` says which tokens of a stream of calls are read from a cache there, and which
are written, by the provider's `RULES`; and `lint` finds what in a template keeps prompts from sharing a beginning.

Whole answers are kept by one set of rules, whichever cache keeps them: `fingerprint` (what was asked), `Scope` (who may see
it) and `CacheControl` (how long it holds), all enforced by one `Store`. `response_cache` repeats answers to questions asked
before, word for word; `semantic_cache` those to questions asked before in other words, if `Acceptance` and the contrast
check allow; `single_flight` shares one stream among those who ask at the same time. `reuse` is the first two in their
order, `accounts` what each layer did, and `savings` reads from the ledger what all were worth.

`CachedEmbedder`, `cached_search` and `reading_tool` keep what is computed on the way, by the same rules.
"""

from labkit.caches.acceptance import Acceptance, StaticThreshold, Verified, calibrated_threshold, fit_curve
from labkit.caches.entry import CacheError, Entry, Lookup, Removal, Ticket
from labkit.caches.layers import accounts, reuse
from labkit.caches.memo import CachedEmbedder, cached_search, reading_tool, writing_tool
from labkit.caches.prefix import Hits, PrefixCache, block_hits
from labkit.caches.response import response_cache, savings
from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.caches.semantic import SemanticCache, semantic_cache
from labkit.caches.singleflight import Flights, single_flight
from labkit.caches.stats import Stats
from labkit.caches.store import Store

__all__ = [
    "Acceptance",
    "CacheControl",
    "CacheError",
    "CachedEmbedder",
    "Entry",
    "Flights",
    "Hits",
    "Lookup",
    "PrefixCache",
    "Removal",
    "Scope",
    "SemanticCache",
    "StaticThreshold",
    "Stats",
    "Store",
    "Ticket",
    "Verified",
    "accounts",
    "block_hits",
    "cached_search",
    "calibrated_threshold",
    "fingerprint",
    "fit_curve",
    "reading_tool",
    "response_cache",
    "reuse",
    "savings",
    "scope_of",
    "semantic_cache",
    "single_flight",
    "writing_tool",
]
