"""Hand out what had come of an answer that broke off, where half an answer is of use."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from labkit.request import (
    Arrived,
    DeadlineExceeded,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    StreamIncomplete,
    clock,
    held,
    hops,
)
from labkit.resilience.retry_budget import check_from_0

PARTIAL = hops.PARTIAL
"""The finish reason of a part of an answer. Clients of OpenAI's interface know "length" for an answer that was cut."""


def is_prose(request: Request) -> bool:
    """Whether half an answer may be of use: `request` asks for text, not for a JSON document or for calls of tools."""
    return request.response_format is None and not request.extra.get("tools")


@dataclass(frozen=True)
class Partials(Lever):
    """Where a stream fails after a part of the answer has come, ends it with a `Done` instead of the error.

    Only for requests that `allow`s them, by default those for prose (`is_prose`); never once the answer has begun to call a
    tool. It needs an `EngineError` or the deadline: the deadline is moved `margin_s` seconds ahead inside, so that the part
    is handed out before it. An error before any content is raised.

    The `Done` has the finish reason and the hop "partial", the error on `faults`, and the usage as the ledger counts it: the
    engine's running count and what came after it. Where the engine gave none, the count of the tokens that came, and a
    `usage_note` that says what is missing. The books hold the attempt as failed, with its cost; in the `Done` the cost is
    None. No cache stores a part. Raises `InvalidValue` for settings that cannot work.
    """

    allow: Callable[[Request], bool] = is_prose
    margin_s: float = 0.05

    def __post_init__(self) -> None:
        if not callable(self.allow):
            raise InvalidValue(f"allow is {self.allow!r:.80}; give a function from a request to whether a part is of use")
        check_from_0("margin_s", self.margin_s)

    def over(self, inner: Handler) -> Handler:
        """`inner`, with parts handed out."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            arrived = Arrived.now()
            whole, text_only = False, True
            fault: EngineError | DeadlineExceeded | None = None
            async with aclosing(held(inner, self._sooner(request))) as events:
                try:
                    async for event in events:
                        if isinstance(event, Done):
                            whole = True
                        else:
                            arrived.note(event)
                            text_only = text_only and not event.tool_calls
                        yield event
                    if not whole:
                        raise StreamIncomplete("the stream ended without a Done; the answer is not whole")
                except (EngineError, DeadlineExceeded) as error:
                    if whole or arrived.first_token is None or not text_only or not self._allowed(request, error):
                        raise
                    fault = error
            if fault is not None:
                yield _part(arrived, request, fault)

        return handle

    def _sooner(self, request: Request) -> Request:
        """`request` with its deadline moved ahead, which must stay a time to come."""
        if request.deadline is None or request.deadline - self.margin_s <= clock.now():
            return request
        return replace(request, deadline=request.deadline - self.margin_s)

    def _allowed(self, request: Request, error: Exception) -> bool:
        try:
            return bool(self.allow(request))
        except Exception as failed:  # noqa: BLE001 - the engine's error is what the caller has to see
            error.add_note(f"Partials: {self.allow!r:.80} could not judge this request: {failed!r:.200}")
            return False


def _part(arrived: Arrived, request: Request, error: Exception) -> Done:
    notes = {
        "running": "",
        "counted": "the engine gave no running count: the output is counted by what came, and the input is unknown",
    }
    note = notes.get(arrived.source, "the engine counted nothing: the tokens are unknown")
    done = Done(arrived.usage, arrived.timing(), PARTIAL, request.model, (hops.PARTIAL,), usage_note=note)
    return done.beside(hops.PARTIAL, error)
