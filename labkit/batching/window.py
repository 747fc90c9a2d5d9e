"""Hold chat requests for a moment, so that an engine starts them in one step.

An idle engine starts the first request of a burst alone, and the others wait for that step to end. If all are held for
`window_s`, they start together. The cost is the wait, which is longest for the first request. An engine with continuous
batching gains little, because its steps are short.
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

    A caller that leaves while its request is held costs nothing. The `Done` counts the hold in its latency: its timing
    begins when the request reached this lever.
    """

    window_s: float

    def __post_init__(self) -> None:
        if not seconds(self.window_s):
            raise InvalidValue(f"window_s is {self.window_s!r}; hold requests for 0 or more seconds")

    def over(self, inner: Handler) -> Handler:
        """`inner`, behind a window of its own."""
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
    """The current window, or the last one."""

    seconds: float
    loop: asyncio.AbstractEventLoop | None = None
    until: float = 0.0

    async def end(self) -> None:
        """Wait for the end of the open window; where none is open, open one now."""
        loop, now = asyncio.get_running_loop(), clock.now()
        if loop is not self.loop or self.until <= now:  # each loop has its own zero of time
            self.loop, self.until = loop, now + self.seconds
        if self.until <= now:
            return
        await clock.sleep_until(self.until)
