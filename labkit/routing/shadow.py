"""Shadow traffic: another handler is tried on a part of the requests; only a comparison sees its answers, no caller."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import ClassVar

from labkit.request import Chooser, Chunk, Completion, Done, Event, Handler, InvalidValue, Request, complete, is_whole
from labkit.routing.checks import check_function, is_share

Compare = Callable[[Request, Completion, Completion], None]
_log = logging.getLogger(__name__)


class Copies:
    """The copies of requests that are under way for a `Shadow`.

    Give one to a `Shadow`, and await `finished` before the event loop closes; otherwise the loop cancels the copies.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return "Copies()"

    async def finished(self) -> None:
        """Return when no copy is under way any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, copy: Coroutine[object, object, None]) -> None:
        """Run `copy` in a task of its own."""
        task = asyncio.create_task(copy)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True)
class Shadow(Chooser):
    """Also ask the second of two handlers for a `share` (0 to 1) of the requests; the caller sees only the first's answer.

    It is placed over two handlers by name, as in {"live": …, "tried": …}. These names are not names of models, so
    `Request.model` is kept. The copy of a request is marked `shadow=True`. It starts in its own task when the main answer is
    whole, so it can neither delay or break that answer nor compete with it for an engine. The copy has no deadline, which
    would cut it off, and no idempotency key, which would give it the main answer. Its cost is in the same books as that of
    the main request. Requests that are copies already are not copied again.

    `compare(request, main, copy)` is called with both answers; errors of the copy and of `compare` are logged. While
    `at_most` copies are under way, further ones are left out, so a stuck shadow holds that many and no more. `copies` holds
    the copies under way, so that they can be awaited; None makes a new one wherever the lever is placed. `seed` determines
    which requests are copied. Raises `InvalidValue` for settings that cannot work.
    """

    share: float
    seed: int = 0
    at_most: int = 8
    compare: Compare | None = None
    copies: Copies | None = field(default=None, repr=False, compare=False)
    renames: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not is_share(self.share):
            raise InvalidValue(f"share is {self.share!r:.80}; use a share of the requests, from 0 to 1")
        if not is_whole(self.at_most, 1):
            raise InvalidValue(f"at_most is {self.at_most!r:.80}; allow at least 1 copy at a time")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InvalidValue(f"seed is {self.seed!r:.80}; use a whole number")
        if self.compare is not None:
            check_function(self.compare, "compare is a function of a request and both answers")
        if self.copies is not None and not isinstance(self.copies, Copies):
            raise InvalidValue(f"copies is {self.copies!r:.80}; give Copies(), or None")

    def over(self, models: Mapping[str, Handler]) -> Handler:
        """One handler that delivers the first handler's answers and tries the second one after them."""
        if len(models) != 2:
            raise InvalidValue(f"a shadow is placed over two handlers, the second the shadow; it got {tuple(models)}")
        main, other = models.values()
        copies = Copies() if self.copies is None else self.copies
        rng = random.Random(self.seed)

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            copied = rng.random() < self.share and not request.shadow
            chunks: list[Chunk] = []
            async with aclosing(main(request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        if copied and len(copies) < self.at_most:
                            copied = False
                            copies.start(self._copy(other, request, chunks, event))
                    elif copied:
                        chunks.append(event)
                    yield event

        return handle

    async def _copy(self, other: Handler, request: Request, chunks: list[Chunk], done: Done) -> None:
        try:
            asked = replace(request, shadow=True, deadline=None, held=None, idempotency_key="")
            copy = await complete(other, asked)
            if self.compare is not None:
                self.compare(request, Completion.of(chunks, done), copy)
        except Exception as error:  # noqa: BLE001 - nobody awaits the copy, so its errors go to the log
            _log.warning("a shadow of a request to %r came to nothing: %r", request.model, error)
