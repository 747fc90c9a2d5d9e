"""Stop an answer that has said enough: tokens that are not generated cost nothing.

A condition (`labkit.streaming.conditions`) is asked after every chunk. When it holds, the stream is closed all the way to
the engine, and the answer ends with a `Done` that tells the usage until then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from labkit.request import Arrived, Done, Event, Handler, InvalidValue, Lever, Request, hops
from labkit.streaming.conditions import Condition, checked


@dataclass(frozen=True)
class StopWhen(Lever):
    """Close the stream as soon as `condition` holds, and end with finish reason "stop" and "cancelled-early" on the route.

    The usage in the `Done` is what the engine had counted up to the last chunk. Where the engine keeps no running count, it
    is the output tokens of the chunks and 0 input tokens, because these are unknown. The engine may have begun a few tokens
    more. The books hold the attempt as cancelled, with the same usage. The cost is in the books only; in the `Done` it is
    None.

    A condition that raises is not asked again: the answer goes on to its end, and the error is on `Done.faults`.
    """

    condition: Condition

    def __post_init__(self) -> None:
        checked("StopWhen", self.condition)

    def over(self, inner: Handler) -> Handler:
        """`inner`, stopped when `condition` holds."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            arrived = Arrived.now()
            text = ""
            fault: Exception | None = None
            async with aclosing(inner(request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        yield event if fault is None else event.beside("stop-when", fault)
                        continue
                    yield event
                    if fault is not None:
                        continue
                    arrived.note(event)
                    text += event.text
                    try:
                        if self.condition(text):
                            break
                    except Exception as error:  # noqa: BLE001 - a condition that fails must not cost the caller its answer
                        fault = error
                else:
                    return  # the stream ended by itself, with its Done or without
            # The stream to the engine is closed before this, because a caller that gets the Done may never resume us.
            yield Done(arrived.usage, arrived.timing(), "stop", request.model, (hops.CANCELLED_EARLY,))

        return handle


def tokens_saved(expected: float, generated: int) -> float:
    """Output tokens that were not generated: `expected` (the mean of such answers) less `generated`, at least 0.

    Raises `InvalidValue` for a negative count.
    """
    if not expected >= 0 or generated < 0:
        raise InvalidValue(f"{expected} tokens expected and {generated} generated; counts start at 0")
    return max(0.0, expected - generated)
