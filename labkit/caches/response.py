"""The response cache: a question asked before, word for word, is answered from the store.

What is kept, and what is not:

- Only whole streams: one that was cancelled, failed or ended without its `Done` is never stored.
- Answers that ended with "stop", "length" or "tool_calls". One cut off by `max_tokens` is kept on purpose: `max_tokens` is
  part of the fingerprint, and a greedy model asked again would be cut at the same place, for the highest price there is.
  Anything else (a content filter, an abort, a reason nobody knows) says more about the moment than about the question.
- Only answers that are a function of the question: greedy, or sampled with a seed. A caller who samples without one wants
  variety; `cache_sampled` says that one sample will do.

In the books a cached answer is an attempt like any other: no engine tokens, cost 0, "response-cache" on its route, and the
`response_id` of the answer it repeats. That id is what `savings` looks up to tell what the answer had cost.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, replace

import pandas as pd

from labkit.caches import singleflight, streams
from labkit.caches.entry import Entry, Ticket
from labkit.caches.rules import CacheControl, Scope, fingerprint, scope_of
from labkit.caches.store import Store
from labkit.ledger import Ledger, Price
from labkit.ledger.store import check_names
from labkit.request import Chunk, Done, Event, Handler, Request, clock

LAYER = "response"
Control = CacheControl | Callable[[Request], CacheControl]


def response_cache(
    inner: Handler,
    store: Store,
    *,
    control: Control | None = None,
    price: Price | None = None,
    currency: str = "USD",
    system_version: str = "",
    per_user: bool = False,
    cache_sampled: bool = False,
) -> Handler:
    """Answer from `store` what was asked before in the same scope; ask `inner` otherwise, once for all who ask at a time.

    `control` says for a request how it may use the cache; where answers are made from facts it must be a function, for it
    is asked before the work begins and its `facts` are the versions then. `price(model, usage)` tells what an answer is
    worth keeping for; without it all count alike. `system_version` and `per_user` are those of `scope_of`.

    Place it inside `booked` and outside of what is paid for. A hit repeats the stored chunks at once, without their
    pauses; its `Done` carries zero usage and cost 0 in `currency`. A store in trouble costs hits, never answers.
    """
    chosen = control or CacheControl()
    flights = singleflight.Flights(currency)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        sent, sent_unix = clock.now(), clock.unix_now()
        wanted = chosen(request) if callable(chosen) else chosen
        if streams.wants_a_sample(request) and not cache_sampled:
            wanted = replace(wanted, no_cache=True, no_store=True)
        scope = scope_of(request, system_version=system_version, per_user=per_user)
        key = fingerprint(request, system_version=system_version)
        found = store.get(scope, key, sent_unix, wanted, layer=LAYER)
        if found.entry is not None:
            for event in streams.replay(json.loads(found.entry.value), streams.RESPONSE, currency, sent, sent_unix):
                yield event
            return

        plan = _Plan(scope, key, wanted, store.ticket(scope), price)

        def ask(asked: Request) -> AsyncGenerator[Event, None]:
            began = clock.unix_now()
            return streams.taken_down(inner, asked, lambda chunks, done: _keep(store, plan, chunks, done, began))

        mark = plan.mark
        async with aclosing(ask(request) if mark is None else flights.join(request, mark, ask)) as events:
            async for event in events:
                yield event

    return handle


def savings(ledger: Ledger, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """What answers that were not computed again had cost, as the books tell, for every value of the attributes `by`.

    An attempt with "response-cache", "semantic-cache" or "single-flight" on its route and cost 0 repeated the answer whose
    `response_id` it has; that answer's own attempt in the same ledger says what it took. Columns: those of `by`,
    `labkit.currency`, `answers` (repeated), `unknown` (of them, those whose original is not in this ledger or has no cost:
    the saving is a lower bound where there are any), `input_tokens` and `output_tokens` not computed again, `saved` (exact
    decimal).
    """
    check_names(by, ledger.path)
    groups = [f'"again"."{name}"' for name in dict.fromkeys((*by, "labkit.currency"))]
    frame = ledger.frame(_SAVINGS.format(groups=", ".join(groups), repeated=_REPEATED))
    return frame.rename(columns={"labkit.cost": "saved"})


_REPEATED = """EXISTS (
  SELECT 1 FROM json_each("labkit.route") WHERE value IN ('response-cache', 'semantic-cache', 'single-flight'))
  AND coalesce("gen_ai.usage.input_tokens", 0) + coalesce("gen_ai.usage.output_tokens", 0) = 0"""
_SAVINGS = """
WITH again AS (SELECT * FROM attempts WHERE "labkit.outcome" = 'completed' AND {repeated}),
first AS (
  SELECT "gen_ai.response.id" AS id, max("gen_ai.usage.input_tokens") AS input, max("gen_ai.usage.output_tokens") AS output,
    max("labkit.cost") AS cost, "labkit.currency" AS currency
  FROM attempts WHERE "labkit.outcome" = 'completed' AND "gen_ai.response.id" <> '' AND NOT ({repeated})
  GROUP BY "gen_ai.response.id", "labkit.currency")
SELECT {groups}, count(*) AS answers, count(*) - count(first.cost) AS unknown, coalesce(sum(first.input), 0) AS input_tokens,
  coalesce(sum(first.output), 0) AS output_tokens, coalesce(decimal_sum(first.cost), '0') AS "labkit.cost"
FROM again LEFT JOIN first ON first.id = again."gen_ai.response.id" AND first.currency = again."labkit.currency"
GROUP BY {groups} ORDER BY {groups}"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was decided for a request before any work began."""

    scope: Scope
    key: str
    control: CacheControl
    ticket: Ticket
    price: Price | None

    @property
    def mark(self) -> Hashable | None:
        """What requests must have in common to share one stream.

        The ticket and the facts' versions are in it: after an invalidation, nobody boards a flight that began before it.
        """
        control = self.control
        if control.no_cache or control.no_store:
            return None
        return self.scope, self.key, self.ticket, control.ttl_s, control.tags, tuple(sorted(control.facts.items()))


def _keep(store: Store, plan: _Plan, chunks: list[Chunk], done: Done, began: float) -> None:
    if plan.control.no_store or not streams.may_be_kept(done):
        store.refuse(LAYER, "no-store")
        return
    entry = Entry(
        plan.scope,
        plan.key,
        streams.dump(streams.encode(chunks, done)),
        created=began,  # what the answer knows, it knew when it began
        layer=LAYER,
        lifetime=plan.control.ttl_s,
        facts=plan.control.facts,
        tags=plan.control.tags,
        cost=worth(done, plan.price, plan.scope.model),
    )
    store.put(entry, plan.ticket, now=clock.unix_now())


def worth(done: Done, price: Price | None, model: str) -> float:
    """What computing an answer cost, for the cache to know what is worth keeping; 1 where nobody prices it."""
    cost = done.cost
    if cost is None and price is not None:
        cost = price(done.model or model, done.usage)
    return 1.0 if cost is None else float(cost)
