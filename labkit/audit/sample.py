"""What a stream leaves behind where not all of it can be kept: a fair sample, or what came last."""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class Reservoir(Generic[Item]):
    """Up to `most` of the things offered, each as likely as any other (Vitter's algorithm R, 1985). Repeatable by `seed`.

    Ask `place` for each thing of the stream, and `put` it there where it is given one: what is not kept need not be made.
    """

    def __init__(self, most: int, seed: int = 0) -> None:
        self.items: list[Item] = []
        self.offered = 0
        self._most, self._dice = most, random.Random(seed)

    def place(self) -> int | None:
        """Where the next thing of the stream goes; None where it is not kept."""
        self.offered += 1
        if len(self.items) < self._most:
            return len(self.items)
        place = int(self._dice.random() * self.offered)
        return place if place < self._most else None

    def put(self, place: int, item: Item) -> None:
        """Keep a thing in its place, in the stead of the one that was there."""
        if place == len(self.items):
            self.items.append(item)
        else:
            self.items[place] = item


class Recent(Generic[Key, Item]):
    """What was put last, by its key: never more than `most` things, and never fewer than the last half of them.

    Things are kept in two halves. When the newer one is full, the older one is forgotten, and counted in `forgotten`.
    """

    def __init__(self, most: int) -> None:
        self.forgotten = 0
        self._half = most // 2
        self._new: dict[Key, Item] = {}
        self._old: dict[Key, Item] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._new or key in self._old

    def get(self, key: Key) -> Item | None:
        """What is kept under `key`; None for nothing."""
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: Key, item: Item) -> None:
        """Keep `item` as the newest."""
        if key not in self._new and len(self._new) >= self._half:
            self.forgotten += len(self._old)
            self._old, self._new = self._new, {}
        if self._old:
            self._old.pop(key, None)
        self._new[key] = item
