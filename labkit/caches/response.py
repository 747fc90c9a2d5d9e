"""The response cache: a question asked before, word for word, is answered from the store.

What is kept, and what is not:

- Only whole streams: one that was cancelled, failed or ended without its `Done` is never stored.
- Answers that ended with "stop", "length" or "tool_calls". One cut off by `max_tokens` is kept on purpose: `max_tokens` is
  part of the fingerprint, and a greedy model asked again would be cut at the same place, for the highest price there is.
  Anything else (a refusal, a content filter, an abort, a reason nobody knows) says more about the moment than about the
  question.
- Only answers that come back as they were: what the lab's own form of events cannot carry is not kept.
- Only answers that are a function of the question: greedy, or sampled with a seed. A caller who samples without one wants
  variety; `CachePolicy.cache_sampled` says that one sample will do.

In the books a cached answer is an attempt like any other: no engine tokens, cost 0, "response-cache" on its route, and a
`response_id` that names the answer it repeats. That id is what `savings` looks up to tell what the answer had cost.
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
    """Answer from `store` what was asked before in the same scope; else ask the engine, once for all who ask at a time.

    A hit repeats the stored chunks at once, without their pauses; its `Done` has zero usage, and cost 0 in the stored
    answer's currency. Where the store, or anything else of the cache's, is in trouble, the engine answers, and the `Done`
    says so in `faults`.
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
