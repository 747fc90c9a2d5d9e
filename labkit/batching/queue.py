"""The items that wait in a batcher, and the order in which they are taken."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Entry(Generic[T, R]):
    """An item, and the futures (`answers`) of the callers that wait for its result.

    `rank` orders a tenant's items: the time of arrival plus the seconds that its priority is worth. `due` is when it has
    waited `max_wait_s`. Both are in seconds of the clock. `mark` is set for an item that may share its result with a twin.
    """

    item: T
    key: Hashable
    tenant: Hashable
    rank: float
    due: float
    mark: Hashable | None = None
    answers: list[asyncio.Future[R]] = field(default_factory=list)


class Queue(Generic[T, R]):
    """Entries by key, then by tenants in turn, then by rank. Costs: push O(log n), drop O(1), take O(keys)."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group[T, R]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def due(self) -> float:
        """When the first entry is due, in seconds of the clock."""
        return min(group.due for group in self._groups.values())

    def push(self, entry: Entry[T, R]) -> None:
        """Add an entry."""
        self._groups.setdefault(entry.key, _Group()).push(entry)
        self._length += 1

    def drop(self, entry: Entry[T, R]) -> bool:
        """Remove an entry; False if it is no longer in the queue."""
        group = self._groups.get(entry.key)
        if group is None or entry not in group.waiting:
            return False
        group.drop(entry)
        self._left(entry.key, 1)
        return True

    def take(self, size: int, now: float) -> list[Entry[T, R]]:
        """The next batch, empty if none is ready: of the keys that fill `size` or are due at `now`, the one due first."""
        ready = [(group.due, n, key) for n, (key, group) in enumerate(self._groups.items()) if group.ready(size, now)]
        if not ready:
            return []
        key = min(ready)[2]
        batch = self._groups[key].take(size)
        self._left(key, len(batch))
        return batch

    def clear(self) -> list[Entry[T, R]]:
        """Remove all entries and return them."""
        entries = [entry for group in self._groups.values() for entry in group.waiting]
        self._groups.clear()
        self._length = 0
        return entries

    def _left(self, key: Hashable, entries: int) -> None:
        self._length -= entries
        if not self._groups[key].waiting:
            del self._groups[key]


class _Group(Generic[T, R]):
    """The entries of one key. `waiting` is in the order in which they came, so its first is due first."""

    def __init__(self) -> None:
        self.waiting: dict[Entry[T, R], None] = {}
        self._tenants: OrderedDict[Hashable, list[tuple[float, int, Entry[T, R]]]] = OrderedDict()
        self._serial = count()

    @property
    def due(self) -> float:
        return next(iter(self.waiting)).due

    def ready(self, size: int, now: float) -> bool:
        return len(self.waiting) >= size or now >= self.due

    def push(self, entry: Entry[T, R]) -> None:
        self.waiting[entry] = None
        heapq.heappush(self._tenants.setdefault(entry.tenant, []), (entry.rank, next(self._serial), entry))

    def drop(self, entry: Entry[T, R]) -> None:
        del self.waiting[entry]  # `take` skips it when it comes up in its tenant's heap

    def take(self, size: int) -> list[Entry[T, R]]:
        batch: list[Entry[T, R]] = []
        while len(batch) < size and self.waiting:
            tenant, heap = self._tenants.popitem(last=False)
            while heap and heap[0][2] not in self.waiting:
                heapq.heappop(heap)
            if not heap:
                continue
            entry = heapq.heappop(heap)[2]
            del self.waiting[entry]
            batch.append(entry)
            if heap:
                self._tenants[tenant] = heap  # moved to the end: this tenant's next turn comes after the others'
        return batch
