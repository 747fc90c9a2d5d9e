"""Stop an answer that has said enough: what is not generated costs nothing.

A condition (`labkit.streaming.conditions`) is asked after every chunk. When it holds, the stream is closed down to the
engine, and the answer ends with a `Done` of what was used until then.
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

    The `Done` says what the engine had counted up to the last chunk; where it keeps no running count, the tokens of the
    chunks, and then 0 input tokens, for nobody knows them. An engine may have begun some tokens more. The books say the same
    of the attempt, which they hold as cancelled; its cost is in the books only, and the `Done` has None.

    A condition that raises is asked no more: the answer goes on to its end, which tells the error among its faults.
    """

    condition: Condition

    def __post_init__(self) -> None:
        checked("StopWhen", self.condition)

    def over(self, inner: Handler) -> Handler:
        """`inner`, stopped when it has said enough."""

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
                    except Exception as error:  # noqa: BLE001 - whatever a condition raises, the answer is being paid for
                        fault = error
                else:
                    return  # as it came, with its Done or without
            # The engine has stopped by now: closed first, for whoever hears the Done may never come back.
            yield Done(arrived.usage, arrived.timing(), "stop", request.model, (hops.CANCELLED_EARLY,))

        return handle


def tokens_saved(expected: float, generated: int) -> float:
    """Output tokens that were not generated: `expected` (what such answers take on average) less `generated`, from 0.

    Raises `InvalidValue` for a negative count.
    """
    if not expected >= 0 or generated < 0:
        raise InvalidValue(f"{expected} tokens expected and {generated} generated; counts start at 0")
    return max(0.0, expected - generated)
