"""The lever that all shrinkers are: it sends fewer tokens of a prompt on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from labkit.request import Done, Event, Handler, InvalidRequest, InvalidValue, Lever, Request, clock, hops
from labkit.shrink.shrunk import Shrunk


class Shrinker(Lever):
    """A lever that shortens the messages of a request before they go on. Make it a frozen dataclass and define `shrink`.

    Its hop on the route is `shrink:` and the class's name, and the time it takes is part of the answer's latency. What fails
    on the way (a scorer that cannot be reached) must not cost the caller the answer: the request then goes on as it was,
    without the hop, and the error is on `Done.faults`. Only `InvalidRequest` reaches the caller: it says that the prompt
    must not be sent like this.
    """

    __slots__ = ()

    @abstractmethod
    async def shrink(self, request: Request) -> Shrunk:
        """The messages of `request`, shortened, with every cut. Nothing is sent to the model that will answer.

        Raises `InvalidRequest` for a prompt that cannot be shortened as asked.
        """

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked with shorter prompts."""
        hop = hops.hop(hops.SHRINK, type(self).__name__)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            began, unix, sent, fault = clock.now(), clock.unix_now(), request, None
            try:
                shrunk = await self.shrink(request)
                if not shrunk.after:
                    raise InvalidValue(f"{type(self).__name__} left no message; it must leave at least the question")
                sent = replace(request, messages=shrunk.after)
            except InvalidRequest:
                raise
            except Exception as error:  # noqa: BLE001 - an answer must not be lost because its prompt could not be shortened
                fault = error
            async with aclosing(inner(sent)) as events:
                async for event in events:
                    if not isinstance(event, Done):
                        yield event
                    elif fault is not None:
                        yield event.since(began, unix).beside(hops.SHRINK, fault)
                    else:
                        yield event.since(began, unix).via(hop)

        return handle
