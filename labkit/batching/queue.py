"""Who waits in a batcher, and who is taken next."""

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
    """An item, and those who wait for its result.

    `rank` orders a tenant's items: the second at which it came, later by its priority. `due` is when it has waited enough.
    """

    item: T
    key: Hashable
    tenant: Hashable
    rank: float
    due: float
    mark: Hashable | None = None
    answers: list[asyncio.Future[R]] = field(default_factory=list)


class Queue(Generic[T, R]):
    """Entries by key, within it by tenant in turn, within that by rank. Push and drop cost O(log n), take O(keys)."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group[T, R]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def due(self) -> float:
        """When the first entry has waited enough, in seconds of the clock."""
        return min(group.due for group in self._groups.values())

    def push(self, entry: Entry[T, R]) -> None:
        """Queue a newcomer."""
        self._groups.setdefault(entry.key, _Group()).push(entry)
        self._length += 1

    def drop(self, entry: Entry[T, R]) -> bool:
        """Forget an entry; False if it was taken before."""
        group = self._groups.get(entry.key)
        if group is None or entry not in group.waiting:
            return False
        group.drop(entry)
        self._left(entry.key, 1)
        return True

    def take(self, size: int, now: float) -> list[Entry[T, R]]:
        """The batch that is ready at `now`: of the keys that fill `size` or are due, the one whose first is due soonest."""
        ready = [(group.due, n, key) for n, (key, group) in enumerate(self._groups.items()) if group.ready(size, now)]
        if not ready:
            return []
        key = min(ready)[2]
        batch = self._groups[key].take(size)
        self._left(key, len(batch))
        return batch

    def clear(self) -> list[Entry[T, R]]:
        """Everything, and nothing is left."""
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
        del self.waiting[entry]  # its tenant's heap passes over it later

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
                self._tenants[tenant] = heap  # behind the others: its next turn comes after theirs
        return batch
