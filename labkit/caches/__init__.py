"""Caches: answers, and parts of answers, that need not be computed again.

The engine keeps the keys and values of prompts that it has read. `PrefixCache` predicts, request by request, how many prompt
tokens vLLM will serve from them. `block_hits` counts how many blocks of a trace a cache of a given size would have served.

API providers sell the same. `provider.serve` says, by the provider's `RULES`, which tokens of a stream of calls are read
from its cache and which are written to it. `lint` finds the parts of a prompt template that keep prompts from sharing a
beginning.

Whole answers are kept by one set of rules, whichever cache keeps them: `fingerprint` (what was asked), `Scope` (who may see
the answer) and `CacheControl` (how long it holds). One `Store` enforces all three. `ResponseCache` repeats the answer when a
question is asked again word for word. `SemanticCache` also does so when the question comes back in other words, if
`Acceptance` and the contrast check allow it. `SingleFlight` gives one stream to all who ask the same at the same time.
`CachePolicy` says how requests may use a cache, `accounts` reports what each layer did, and `savings` reads from the ledger
how much the caches saved. Before you trust a cache, `rehearse` plays labelled questions to it, and `trial` runs it for days
on the virtual clock and counts what it saves and what it gets wrong.

`CachedEmbedder`, `cached_search` and `reading_tool` keep intermediate results (vectors, passages, tool results) by the same
rules.
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
from labkit.caches.streams import given_again

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
    "given_again",
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
