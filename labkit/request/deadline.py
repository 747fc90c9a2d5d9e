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
    """`request` with its deadline `seconds` from now, or the one it has if that is sooner: a deadline only tightens."""
    if not seconds > 0:
        raise InvalidRequest(f"a deadline must lie ahead; {seconds} s is not")
    deadline = clock.now() + seconds
    return replace(request, deadline=deadline if request.deadline is None else min(deadline, request.deadline))


def held(handler: Handler, request: Request) -> AsyncGenerator[Event, None]:
    """The stream of `handler`, which raises `DeadlineExceeded` as soon as the request's deadline passes.

    Stacks and engines call their own work through this, so nobody has to place a lever for it. A deadline that is held
    further out costs nothing here; one that was tightened on the way is held from there on.
    """
    if request.deadline is None or request.deadline == request.held:
        return handler(request)
    return _held(handler, replace(request, held=request.deadline), request.deadline)


async def _held(handler: Handler, request: Request, deadline: float) -> AsyncGenerator[Event, None]:
    """Guards each wait for the next event rather than the whole stream, so it never fires while the *caller* is busy with an
    event it already has; a caller that was too slow finds out at its next event.
    """
    started = clock.now()
    partial: list[str] = []
    async with aclosing(handler(request)) as events:
        while True:
            limit = asyncio.timeout_at(deadline)
            # timeout_at acts at the next suspension; one already overdue must not start the engine first.
            overdue = clock.now() >= deadline
            try:
                async with limit:
                    if overdue:
                        raise TimeoutError
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if not (overdue or limit.expired()):  # somebody else's
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
