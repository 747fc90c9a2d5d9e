"""The dynamic batcher: items that are submitted one at a time are run many at a time.

Embedding, classifying or reranking 32 texts in one call takes little longer than one text. A batch starts when it is full,
or when its first item has waited `max_wait_s`. This wait is the price at low load of the throughput at high load. One batch
runs at a time; items that come meanwhile make the next one larger, so the batch size follows the load by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from labkit.batching.errors import BatcherClosed, BatchFailed, QueueFull
from labkit.batching.numbers import seconds, whole
from labkit.batching.queue import Entry, Queue
from labkit.batching.size import BatchSize
from labkit.request import InvalidValue, clock

T = TypeVar("T")
R = TypeVar("R")


def _none(_: object) -> None:
    return None


def _zero(_: object) -> int:
    return 0


class Batcher(Generic[T, R]):
    """Collects items and answers each from a `run` of many; works on both clocks, in one event loop at a time.

    `run` is given 1 to `max_size` items with the same `key(item)` and returns a result for each, in order. A batch is chosen
    in this way:

    - Of the keys whose batch is full, or whose first item has waited `max_wait_s`, the one whose first item has waited
      longest is next.
    - Within a key, the tenants take turns, one item each (round robin), so a tenant that floods the batcher delays itself.
    - Within a tenant, the lower `priority(item)` goes first, as with `Request`. One step of priority is worth `priority_s`
      seconds of waiting, so an item that has waited long enough goes before any priority, and no item starves.

    Items of one key with the same `identity(item)` share one result, whoever sent them: a newcomer joins its twin that waits
    or runs. Without `identity` nothing is shared. `queue_limit` is the most items that may wait. With a `latency_budget_s`,
    the batch size adapts so that a run stays within `latency_budget_s − max_wait_s` (see `BatchSize`). Raises `InvalidValue`
    for settings that cannot work.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_size: int,
        max_wait_s: float,
        latency_budget_s: float | None = None,
        key: Callable[[T], Hashable] = _none,
        tenant: Callable[[T], Hashable] = _none,
        priority: Callable[[T], int] = _zero,
        priority_s: float = 1.0,
        identity: Callable[[T], Hashable] | None = None,
        queue_limit: int = 1024,
    ) -> None:
        if not seconds(max_wait_s):
            raise InvalidValue(f"max_wait_s is {max_wait_s!r}; use seconds from 0")
        if not seconds(priority_s):
            raise InvalidValue(f"priority_s is {priority_s!r}; a step of priority is worth 0 or more seconds of waiting")
        self._size = BatchSize(max_size, max_wait_s, latency_budget_s)
        if not whole(queue_limit, max_size):
            raise InvalidValue(f"queue_limit is {queue_limit!r}: a batch of {max_size} would never fill; allow {max_size}")
        self._run = run
        self._max_wait_s = max_wait_s
        self._key, self._tenant, self._priority, self._identity = key, tenant, priority, identity
        self._priority_s = priority_s
        self._queue_limit = queue_limit
        self._queue: Queue[T, R] = Queue()
        self._shared: dict[Hashable, Entry[T, R]] = {}
        self._closing = False
        self._changed = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Items that wait for their batch; twins count once."""
        return len(self._queue)

    @property
    def size(self) -> int:
        """The most items that the next batch may have."""
        return self._size.allowed

    async def submit(self, item: T) -> R:
        """The result of `item`. If this call is cancelled while the item waits, the item is dropped, unless a twin needs it.

        Raises `QueueFull`; `BatcherClosed`; the error that `run` raised for the item's batch; and `BatchFailed` if the batch
        was cancelled or `run` returned a different number of results than it was given items.
        """
        if self._closing:
            raise BatcherClosed("this batcher is closed; make a new one")
        entry = self._enter(item)
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        entry.answers.append(answer)
        try:
            return await answer
        finally:
            entry.answers.remove(answer)
            if not entry.answers and self._queue.drop(entry):
                self._forget(entry)
                self._changed.set()

    async def aclose(self) -> None:
        """Accept no more items, run the waiting ones at once, and return when all of them are answered."""
        self._closing = True
        self._changed.set()
        if self._working is not None:
            await asyncio.wait({self._working})

    async def __aenter__(self) -> Batcher[T, R]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _enter(self, item: T) -> Entry[T, R]:
        key = self._key(item)
        mark = None if self._identity is None else (key, self._identity(item))
        twin = None if mark is None else self._shared.get(mark)
        if twin is not None:
            return twin
        if len(self._queue) >= self._queue_limit:
            raise QueueFull(f"{len(self._queue)} items wait, as many as queue_limit allows; send less, or later")
        now = clock.now()
        rank = now + self._priority(item) * self._priority_s
        entry: Entry[T, R] = Entry(item, key, self._tenant(item), rank, now + self._max_wait_s, mark)
        self._queue.push(entry)
        if mark is not None:
            self._shared[mark] = entry
        if self._working is None or self._working.done():
            self._changed = asyncio.Event()
            self._working = asyncio.create_task(self._work(), name="batcher")
        self._changed.set()
        return entry

    def _forget(self, entry: Entry[T, R]) -> None:
        if entry.mark is not None:
            del self._shared[entry.mark]

    async def _work(self) -> None:
        """Run batch after batch while items wait; ends with the last one, so that no task is left behind."""
        try:
            while self._queue:
                now = float("inf") if self._closing else clock.now()
                batch = self._queue.take(self._size.allowed, now)
                if batch:
                    await self._answer(batch)
                else:
                    await self._until(self._queue.due)
        finally:
            # Items are left only after a cancellation. Their submitters must not wait for a task that has ended.
            for entry in self._queue.clear():
                self._settle(entry, BatchFailed("the batcher was cancelled before this item's batch; submit it again"))

    async def _until(self, due: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout_at(due):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _answer(self, batch: list[Entry[T, R]]) -> None:
        began = clock.now()
        try:
            results = await self._run([entry.item for entry in batch])
            if len(results) != len(batch):
                raise BatchFailed(f"run gave {len(results)} results for {len(batch)} items; return one for each, in order")
        except BaseException as error:
            own = isinstance(error, Exception)
            told = error if own else BatchFailed("this item's batch was cancelled while it ran; submit it again")
            for entry in batch:
                self._settle(entry, told)
            if own or (isinstance(error, asyncio.CancelledError) and not self._cancelled()):
                return
            raise
        self._size.ran(len(batch), clock.now() - began)
        for entry, result in zip(batch, results, strict=True):
            self._settle(entry, None, result)

    def _cancelled(self) -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _settle(self, entry: Entry[T, R], error: BaseException | None, result: Any = None) -> None:
        self._forget(entry)
        for answer in entry.answers:
            if answer.done():
                continue
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
