"""Deadlines: an absolute time on the request, held in every stack and on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from labkit.request import clock
from labkit.request.errors import DeadlineExceeded, InvalidRequest
from labkit.request.handler import Handler
from labkit.request.values import Chunk, Event, Request


def within(request: Request, seconds: float) -> Request:
    """`request` with its deadline `seconds` from now, or with its present one if that is sooner: deadlines only tighten.

    Raises `InvalidRequest` for `seconds` that are not above 0 or not finite.
    """
    if not seconds > 0:
        raise InvalidRequest(f"a deadline must lie ahead; {seconds} s is not")
    deadline = clock.now() + seconds
    return replace(request, deadline=deadline if request.deadline is None else min(deadline, request.deadline))


def held(handler: Handler, request: Request) -> AsyncGenerator[Event, None]:
    """The stream of `handler`, which raises `DeadlineExceeded` as soon as the request's deadline passes.

    Stacks and engines call their own work through this, so deadlines need no lever. Where a lever further out enforces the
    same deadline already (`Request.held`), this adds nothing. A deadline that a lever on the way has tightened is enforced
    from there inwards.
    """
    if request.deadline is None or request.deadline == request.held:
        return handler(request)
    return _held(handler, replace(request, held=request.deadline), request.deadline)


async def _held(handler: Handler, request: Request, deadline: float) -> AsyncGenerator[Event, None]:
    """Guard each wait for the next event, not the whole stream: the deadline never fires while the *caller* is busy with an
    event. A caller that was too slow gets the error when it asks for its next event.
    """
    started = clock.now()
    partial: list[str] = []
    async with aclosing(handler(request)) as events:
        while True:
            limit = asyncio.timeout_at(deadline)
            # timeout_at acts only at the next suspension: a request that is overdue already must not start the engine first.
            overdue = clock.now() >= deadline
            try:
                async with limit:
                    if overdue:
                        raise TimeoutError
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if not (overdue or limit.expired()):  # the handler's own timeout, not this deadline
                    raise
                raise DeadlineExceeded(
                    f"no complete answer {clock.now() - started:.3f} s after the start: the deadline was "
                    f"{deadline - started:.3f} s away ({len(partial)} chunks had arrived); "
                    "allow more time or ask for fewer tokens",
                    partial="".join(partial),
                ) from error
            if isinstance(event, Chunk):
                partial.append(event.text)
            yield event
