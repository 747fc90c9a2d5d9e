"""What need not be computed again.

The engine keeps the keys and values of prompts it has read: `PrefixCache` predicts, request by request, how many tokens vLLM
will serve from there, and `block_hits` what a cache of some size would have served of a trace.

API providers sell the same: `provider.serve` says which tokens of a stream of calls are read from a cache there, and which
are written, by the provider's `RULES`; and `lint` finds what in a template keeps prompts from sharing a beginning.

Whole answers are kept by one set of rules, whichever cache keeps them: `fingerprint` (what was asked), `Scope` (who may see
it) and `CacheControl` (how long it holds), all enforced by one `Store`. `ResponseCache` repeats answers to questions asked
before, word for word; `SemanticCache` also those to questions asked before in other words, if `Acceptance` and the contrast
check allow; `SingleFlight` shares one stream among those who ask at the same time. `CachePolicy` says how requests may use
a cache, `accounts` what each layer did, and `savings` reads from the ledger what all were worth. Before a cache is trusted,
`rehearse` plays labelled questions past it, and `trial` has it run for days and counts what it saves and what it gets wrong.

`CachedEmbedder`, `cached_search` and `reading_tool` keep what is computed on the way, by the same rules.
"""

from labkit.caches import provider, trial
from labkit.caches.acceptance import (
    Acceptance,
    Curve,
    StaticThreshold,
    Verified,
    calibrated_threshold,
    fit_curve,
    upper_bound,
)
from labkit.caches.contrast import Difference, differences
from labkit.caches.entry import CacheError, Entry, Lookup, Removal, Ticket
from labkit.caches.layers import accounts
from labkit.caches.match import Asked, Audit, Candidate, Match, asked_of
from labkit.caches.memo import CachedEmbedder, cached_search, reading_tool, writing_tool
from labkit.caches.policy import CachePolicy
from labkit.caches.prefix import Hits, PrefixCache, block_hits
from labkit.caches.prompt_lint import Finding, lint
from labkit.caches.rehearsal import Rehearsal, rehearse
from labkit.caches.response import ResponseCache
from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.caches.saved import savings
from labkit.caches.semantic import SemanticCache, same_text
from labkit.caches.singleflight import SingleFlight, same_question
from labkit.caches.stats import Stats
from labkit.caches.store import Store

__all__ = [
    "Acceptance",
    "Asked",
    "Audit",
    "CacheControl",
    "CacheError",
    "CachePolicy",
    "CachedEmbedder",
    "Candidate",
    "Curve",
    "Difference",
    "Entry",
    "Finding",
    "Hits",
    "Lookup",
    "Match",
    "PrefixCache",
    "Rehearsal",
    "Removal",
    "ResponseCache",
    "Scope",
    "SemanticCache",
    "SingleFlight",
    "StaticThreshold",
    "Stats",
    "Store",
    "Ticket",
    "Verified",
    "accounts",
    "asked_of",
    "block_hits",
    "cached_search",
    "calibrated_threshold",
    "differences",
    "fingerprint",
    "fit_curve",
    "lint",
    "provider",
    "reading_tool",
    "rehearse",
    "same_question",
    "same_text",
    "savings",
    "scope_of",
    "trial",
    "upper_bound",
    "writing_tool",
]
