"""The parts that all cache levers over a store share: word-for-word look-up, shared stream, and storing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from labkit.caches import streams
from labkit.caches.entry import CacheError, Entry, Lookup
from labkit.caches.policy import CachePolicy
from labkit.caches.rules import CacheControl, Scope
from labkit.caches.singleflight import Flights
from labkit.caches.store import Store
from labkit.caches.streams import Aside
from labkit.request import Completion, Done, Event, Handler, Request, books_in, clock, hops, served, taken_down

LAYER = "response"


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions taken for a request before any work began, and the errors on the way.

    `sent` is in seconds of `clock.now()`, and `unix` is the same moment in seconds since 1970. Facts and lifetime of the
    answer count from that moment.
    """

    store: Store
    scope: Scope
    key: str
    control: CacheControl
    sent: float
    unix: float
    looked: Lookup
    aside: Aside

    @property
    def mark(self) -> Hashable | None:
        """A key that is equal for requests that may share one stream; None for a request that is never shared.

        The ticket and the versions of the facts are part of it: after an invalidation, nobody joins a stream that began
        before it.
        """
        control, ticket = self.control, self.looked.ticket
        if control.no_cache or control.no_store or not ticket.valid:
            return None
        return self.scope, self.key, ticket, control.ttl_s, control.tags, tuple(sorted(control.facts.items()))

    def entry(self, layer: str, value: bytes, cost: float) -> Entry:
        """An entry with this plan's scope, key, time, lifetime, facts and tags."""
        control = self.control
        return Entry(self.scope, self.key, value, self.unix, layer, control.ttl_s, control.facts, control.tags, cost)

    def keep(self, answer: Completion, beside: Sequence[tuple[str, bytes]] = ()) -> None:
        """Store a whole answer, and the values `beside` it (layer, value) under the same key.

        An answer that may not be kept is counted as refused. Raises `CacheError` if the file cannot take it.
        """
        value = None
        if not self.control.no_store and streams.may_be_kept(answer.done):
            value = streams.encode(answer)
        if value is None:
            for layer in (LAYER, *(layer for layer, _ in beside)):
                self.store.refuse(layer, "no-store")
            return
        cost = worth(answer.done)
        entries = [self.entry(layer, what, cost) for layer, what in ((LAYER, value), *beside)]
        if self.store.put_together(entries, self.looked.ticket, now=clock.unix_now()) == "unavailable":
            raise self.store.trouble or CacheError(f"{self.store!r} could not keep the answer")


Ask = Callable[[Request, Plan], AsyncGenerator[Event, None]]


def repeating(store: Store, policy: CachePolicy, inner: Handler, where: str, ask: Ask) -> Handler:
    """Answers a repeated question from `store`, word for word; otherwise from `ask`, once for requests that overlap in time.

    If the look-up fails, `inner` is asked as if there were no cache, and the error is added to the answer's `Done` under the
    name `where`.
    """
    flights, beneath = Flights(), books_in(inner)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        aside = Aside(where)
        plan = aside.attempt(lambda: _planned(store, policy, request, aside))
        again = None if plan is None else aside.attempt(lambda: _again(plan))
        if again is not None:
            events = served(streams.played(again), request, beneath)
        elif plan is None:
            events = aside.beside(inner(request))
        elif plan.mark is None:
            events = ask(request, plan)
        else:
            events = flights.join(request, plan.mark, lambda shared: ask(shared, plan), beneath)
        async with aclosing(events) as stream:
            async for event in stream:
                yield event

    return handle


def asked_anew(
    inner: Handler, request: Request, plan: Plan, keep: Callable[[Completion], None]
) -> AsyncGenerator[Event, None]:
    """The answer of `inner`; `keep` gets the whole answer before its `Done` is handed on."""

    def end(answer: Completion) -> Done:
        plan.aside.attempt(lambda: keep(answer))
        return plan.aside.told(answer.done)

    return taken_down(inner(request), end)


def worth(done: Done) -> float:
    """What computing an answer cost, so that the cache knows which answers are worth keeping; 1 if nobody priced it."""
    try:
        cost = 1.0 if done.cost is None else float(done.cost)
    except (TypeError, ValueError, OverflowError):
        return 1.0
    return cost if 0 <= cost < float("inf") else 1.0


def _planned(store: Store, policy: CachePolicy, request: Request, aside: Aside) -> Plan | None:
    """The plan for `request`, with its look-up done; None for a request that may not use the cache at all."""
    sent, unix = clock.now(), clock.unix_now()
    wanted = policy.of(request)
    if wanted.no_cache and wanted.no_store:
        store.miss(LAYER, "no-cache")
        return None
    scope, key = policy.scope(request), policy.fingerprint(request)
    looked = store.get(scope, key, unix, wanted, layer=LAYER)
    if looked.trouble is not None:
        aside.errors.append(looked.trouble)
    return Plan(store, scope, key, wanted, sent, unix, looked, aside)


def _again(plan: Plan) -> list[Event] | None:
    if plan.looked.entry is None:
        return None
    return streams.replay(plan.looked.entry.value, hops.RESPONSE_CACHE, plan.sent, plan.unix)
