"""Hold chat requests for a moment, so that an engine starts them in one step.

An engine that is idle starts the first request of a burst alone, and the others wait for that step to end. Held for
`window_s`, they start together. What it costs is the wait itself, for the first of them all of it; an engine with
continuous batching gains little, for its steps are short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from labkit.batching.numbers import seconds
from labkit.request import Chunk, Event, Handler, InvalidValue, Lever, Request, clock, hops


@dataclass(frozen=True)
class CoalescingWindow(Lever):
    """Release requests together, `window_s` seconds after the first of them; 0 holds none.

    Who leaves while held costs nothing. The `Done` counts the hold as the caller's: its timing begins when the request
    came here.
    """

    window_s: float

    def __post_init__(self) -> None:
        if not seconds(self.window_s):
            raise InvalidValue(f"window_s is {self.window_s!r}; hold requests for 0 or more seconds")

    def over(self, inner: Handler) -> Handler:
        """`inner`, with a window of its own in front."""
        window = _Window(self.window_s)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, started_unix = clock.now(), clock.unix_now()
            await window.end()
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event if isinstance(event, Chunk) else event.since(sent, started_unix).via(hops.COALESCING_WINDOW)

        return handle


@dataclass(slots=True)
class _Window:
    """The window that is open, or the last one that was."""

    seconds: float
    loop: asyncio.AbstractEventLoop | None = None
    until: float = 0.0

    async def end(self) -> None:
        """Wait for the end of the window that is open, or of one that opens now."""
        loop, now = asyncio.get_running_loop(), clock.now()
        if loop is not self.loop or self.until <= now:  # each loop has its own zero of time
            self.loop, self.until = loop, now + self.seconds
        if self.until <= now:
            return
        await clock.sleep_until(self.until)
