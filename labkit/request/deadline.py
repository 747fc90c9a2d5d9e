"""Deadlines: an absolute time on the request, enforced at every event by one lever."""

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


def deadlines(inner: Handler) -> Handler:
    """Raise `DeadlineExceeded` as soon as a request's deadline passes, and cancel the stream down to the engine.

    The time-out guards each wait for the next event rather than the whole stream, so it never fires while the *caller* is
    busy with an event it already has; a caller that was too slow finds out at its next event.
    """

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        if request.deadline is None:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event
            return
        started = clock.now()
        partial: list[str] = []
        async with aclosing(inner(request)) as events:
            while True:
                try:
                    async with asyncio.timeout_at(request.deadline):
                        # timeout_at acts at the next suspension; one already overdue must not start the engine first.
                        if clock.now() >= request.deadline:
                            raise TimeoutError
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    text = "".join(partial)
                    raise DeadlineExceeded(
                        f"no complete answer {clock.now() - started:.3f} s after the start: the deadline was "
                        f"{request.deadline - started:.3f} s away ({len(partial)} chunks had arrived); "
                        "allow more time or ask for fewer tokens",
                        partial=text,
                    ) from error
                if isinstance(event, Chunk):
                    partial.append(event.text)
                yield event

    return handle
