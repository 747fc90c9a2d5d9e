"""What need not be computed again.

The engine keeps the keys and values of prompts it has read: `PrefixCache` predicts, request by request, how many tokens vLLM
will serve from there, and `block_hits` what a cache of some size would have served of a trace.
"""

from labkit.caches.prefix import Hits, PrefixCache, block_hits

__all__ = ["Hits", "PrefixCache", "block_hits"]
