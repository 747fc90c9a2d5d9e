"""One paid answer for one idempotency key, however often the request is sent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import ClassVar

from labkit.caches import SingleFlight, fingerprint, given_again
from labkit.request import (
    Books,
    Completion,
    Done,
    Event,
    Handler,
    InvalidRequest,
    InvalidValue,
    Lever,
    Request,
    Timing,
    Usage,
    books_in,
    clock,
    hops,
    is_whole,
    served,
    taken_down,
)
from labkit.resilience.retry_budget import check_from_0

Place = tuple[str, str]
"""A tenant and an idempotency key of its."""


class KeyReused(InvalidRequest):
    """The idempotency key belongs to another request; `status` is the HTTP status for it."""

    status: ClassVar[int] = 422


@dataclass(frozen=True)
class Idempotent(Lever):
    """Requests with the same `idempotency_key` of the same tenant get one answer, which is paid for once.

    The first request is answered by what is inside. Those that come while it runs share its stream (`SingleFlight`). Those
    that come later, for `ttl_s` seconds after its end, get the answer again at once: zero tokens, cost 0, and "idempotent"
    on the route. A request without a key passes. So does a sampled one with a key: it gets the answer that was drawn.

    A key stands for one request. A request with the same key and another question, model or set of permissions is refused
    with `KeyReused`, before anything is computed or shown. That is HTTP status 422 in the IETF's draft "The Idempotency-Key
    HTTP Header Field". (The draft refuses a request whose first copy still runs, with 409; here it shares the stream.)

    Only a whole answer is remembered. After an error the next request with the key is answered anew, and so it is after a
    caller has left when nobody else was listening, because then the stream is closed down to the engine
    (`labkit.streaming.Resumable` keeps a stream for a reader that comes back). A part that `Partials` gave is no whole
    answer. At most `entries` answers are remembered, in memory; the oldest goes first. Raises `InvalidValue` for fewer than
    one, and for a `ttl_s` that is not above 0.
    """

    ttl_s: float = 86_400.0
    entries: int = 10_000

    def __post_init__(self) -> None:
        check_from_0("ttl_s", self.ttl_s)
        if self.ttl_s == 0 or not is_whole(self.entries, 1):
            raise InvalidValue(
                f"{self.entries!r:.60} answers for {self.ttl_s!r:.60} s are none; remember a whole number from 1, for more "
                "than 0 s"
            )

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked once for one key."""
        memory = _Memory(self)
        shared, beneath = SingleFlight(_place)(inner), books_in(inner)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            events = memory.answer(request, shared, beneath) if request.idempotency_key else inner(request)
            async with aclosing(events) as stream:
                async for event in stream:
                    yield event

        return handle


def _place(request: Request) -> Place:
    return request.tenant, request.idempotency_key


@dataclass(slots=True, eq=False)
class _Record:
    """What one key stands for."""

    meant: Hashable
    running: int = 0
    """How many requests are getting the answer now, from what is inside."""
    answer: Completion | None = None
    until: float = 0.0
    """When the answer is forgotten, in seconds of `clock.now()`."""


@dataclass(slots=True, eq=False)
class _Memory:
    lever: Idempotent
    running: dict[Place, _Record] = field(default_factory=dict)
    answered: OrderedDict[Place, _Record] = field(default_factory=OrderedDict)
    """The oldest first, so those that are to be forgotten first as well."""

    async def answer(self, request: Request, shared: Handler, beneath: tuple[Books, ...]) -> AsyncGenerator[Event, None]:
        place, meant = _place(request), (fingerprint(request), request.permissions)
        self._forget_old()
        record = self.answered.get(place) or self.running.setdefault(place, _Record(meant))
        if record.meant != meant:
            raise KeyReused(
                f"the idempotency key {request.idempotency_key!r:.80} was used for another request; use a new key for a new "
                "request, and an old one only to send the same request again"
            )
        if record.answer is not None:
            events = served(_again(record.answer), request, beneath)
        else:
            events = self._computed(place, record, shared(request))
        async with aclosing(events) as stream:
            async for event in stream:
                yield event

    async def _computed(
        self, place: Place, record: _Record, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[Event, None]:
        def keep(answer: Completion) -> Done:
            if record.answer is None and answer.done.finish_reason != hops.PARTIAL:
                record.answer, record.until = answer, clock.now() + self.lever.ttl_s
                self.running.pop(place, None)
                self.answered[place] = record
                while len(self.answered) > self.lever.entries:
                    self.answered.popitem(last=False)
            return answer.done

        record.running += 1
        try:
            async with aclosing(taken_down(events, keep)) as stream:
                async for event in stream:
                    yield event
        finally:
            record.running -= 1
            if record.answer is None and not record.running and self.running.get(place) is record:
                del self.running[place]

    def _forget_old(self) -> None:
        now = clock.now()
        while self.answered and next(iter(self.answered.values())).until <= now:
            self.answered.popitem(last=False)


async def _again(answer: Completion) -> AsyncGenerator[Event, None]:
    """`answer` for a caller who sends the request again."""
    now, unix = clock.now(), clock.unix_now()
    said = now if any(chunk.has_content for chunk in answer.chunks) else None
    for chunk in answer.chunks:
        yield replace(chunk, at=now, usage=Usage())
    yield replace(given_again(answer.done), timing=Timing(now, said, said, now, unix), route=(hops.IDEMPOTENT,))
