"""Where rolling summaries are kept, so that each is made and paid for once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from labkit.request import InvalidValue, is_whole


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of summing up some turns: the summary, or with `failed`, why there is none."""

    text: str
    failed: bool = False


@dataclass(eq=False)
class SummaryStore:
    """The summaries that were made, each under a digest of the turns that it covers, and the failures, paid once as well.

    A conversation is known by its own text, so it needs no name, and a turn that was edited is never found under its old
    summary. `limit` bounds how many are kept; those unused for longest go first. Raises `InvalidValue` for a limit below 1.
    """

    limit: int = 10_000
    _kept: OrderedDict[str, Summary] = field(default_factory=OrderedDict, init=False, repr=False)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not is_whole(self.limit, 1):
            raise InvalidValue(f"limit is {self.limit!r:.80}; keep at least 1 summary")

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Summary | None:
        """What is kept under `key`; None where it was not tried."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, made: Summary) -> None:
        """Keep a summary or a failure."""
        self._kept[key] = made
        self._kept.move_to_end(key)
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)

    @asynccontextmanager
    async def making(self, key: str) -> AsyncIterator[None]:
        """One caller at a time makes the summary under `key`, so that it is paid for once."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            try:
                yield
            finally:
                self._locks.pop(key, None)
