"""The response cache: a question that was asked before, word for word, is answered from the store.

What is kept:

- Only whole streams: a stream that was cancelled, failed or ended without its `Done` is never stored.
- Only answers that ended with "stop", "length" or "tool_calls". An answer that `max_tokens` cut off is kept on purpose:
  `max_tokens` is part of the fingerprint, and a greedy model that is asked again would stop at the same place, after the
  largest number of paid tokens. Any other reason (a refusal, a content filter, an abort, an unknown reason) says more about
  the moment than about the question.
- Only answers that can be restored exactly: an answer with something that the lab's own form of events cannot hold is not
  kept.
- Only answers that depend on nothing but the question: greedy, or sampled with a seed. A caller who samples without a seed
  wants varied answers; `CachePolicy.cache_sampled` overrides this.

In the ledger a cached answer is an attempt like any other: no engine tokens, cost 0, "response-cache" on its route, and a
`response_id` that names the answer it repeats. `savings` uses that id to look up what the original answer cost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from labkit.caches.policy import CachePolicy
from labkit.caches.repeats import Plan, asked_anew, repeating
from labkit.caches.store import Store
from labkit.request import Event, Handler, InvalidValue, Lever, Request, hops


@dataclass(frozen=True)
class ResponseCache(Lever):
    """Answers from `store` if the same question was asked before in the same scope; otherwise asks the engine.

    Requests for the same answer that overlap in time share one stream of the engine. A hit repeats the stored chunks at
    once, without their pauses. Its `Done` has zero usage, and cost 0 in the stored answer's currency. If the store, or
    anything else of the cache, fails, the engine answers, and the `Done` says so in `faults`.
    """

    store: Store
    policy: CachePolicy = field(default_factory=CachePolicy)

    def __post_init__(self) -> None:
        check(self.store, self.policy)

    def over(self, inner: Handler) -> Handler:
        """`inner` with the cache in front of it."""

        def ask(request: Request, plan: Plan) -> AsyncGenerator[Event, None]:
            return asked_anew(inner, request, plan, plan.keep)

        return repeating(self.store, self.policy, inner, hops.RESPONSE_CACHE, ask)


def check(store: object, policy: object) -> None:
    """Raise `InvalidValue` for settings of the wrong kind."""
    if not isinstance(store, Store):
        raise InvalidValue(f"a cache needs a Store, such as Store('cache.db'); it got {store!r:.80}")
    if not isinstance(policy, CachePolicy):
        raise InvalidValue(f"policy is {policy!r:.80}; give a CachePolicy, such as CachePolicy(per_user=True)")
