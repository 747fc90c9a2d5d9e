"""Shadow traffic: another way is tried on a part of the requests, and nobody sees its answers but who compares them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import ClassVar

from labkit.request import Chooser, Chunk, Completion, Done, Event, Handler, InvalidValue, Request, complete
from labkit.routing.checks import check_function, is_share, is_whole

Compare = Callable[[Request, Completion, Completion], None]
_log = logging.getLogger(__name__)


class Copies:
    """The copies that are under way. Give it to a `Shadow` and wait here before the loop closes, or they are cancelled."""

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
    """Ask the second of two handlers too for a `share` (0 to 1) of the requests; the caller sees the first's answer only.

    It is placed over two handlers by name, as in {"live": …, "tried": …}; the names are no models', so requests keep theirs.
    The copy, marked `shadow=True`, starts when the main answer is whole, in a task of its own: it cannot delay or break that
    answer, nor compete with it for an engine. It has no deadline and no idempotency key, or it would be cut off, or answered
    with the main answer. Its cost is in the books that the main request is in.

    `compare(request, main, copy)` sees both answers; errors of the copy and of `compare` are logged. At `at_most` copies
    under way further ones are left out, so a stuck shadow holds that many and no more. `copies` holds those under way, to be
    waited for; None for new ones in each place. `seed` settles which requests are copied.
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
        """One handler that answers as the first, and tries the second beside it."""
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
        except Exception as error:  # noqa: BLE001 - nobody waits for the copy; the log is where its errors can go
            _log.warning("a shadow of a request to %r came to nothing: %r", request.model, error)
