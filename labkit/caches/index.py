"""Vectors of cache entries, searchable within a partition and never across: one exact FAISS index for each.

A hit for another tenant cannot be filtered out too late here, because it is never found. Indexes are flat (every vector is
compared): exact, entries come and go at once, and 10,000 vectors of 384 numbers take about a millisecond. The store keeps
the truth; this is rebuilt from it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labkit.embeddings import BadVector, Vectors, is_unit
from labkit.request import InvalidValue


@dataclass(slots=True)
class _Part:
    index: Any
    keys: dict[int, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


class Index:
    """Unit vectors of `dimension` numbers under text keys, by partition. Threads may share it.

    A vector of another length, or with a number that is not finite, would be near what it is not like: it is refused with
    `BadVector`, going in and as a question; one of another shape with `InvalidValue`.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._parts: dict[Hashable, _Part] = {}
        self._lock = threading.Lock()
        self._next = 0

    def __len__(self) -> int:
        with self._lock:
            return sum(len(part.keys) for part in self._parts.values())

    def places(self) -> set[tuple[Hashable, str]]:
        """Everything in it, as (partition, key)."""
        with self._lock:
            return {(name, key) for name, part in self._parts.items() for key in part.numbers}

    def add(self, partition: Hashable, key: str, vector: Vectors) -> None:
        """Put `vector` (shape (dimension,)) under `key`, in place of the one that is there."""
        import faiss  # a third of a second, and only where something is kept

        self._check(vector)
        with self._lock:
            part = self._parts.get(partition)
            if part is None:
                part = self._parts[partition] = _Part(faiss.IndexIDMap2(faiss.IndexFlatIP(self.dimension)))
            self._remove(part, key)
            self._next += 1
            part.index.add_with_ids(vector[None, :], np.array([self._next], np.int64))
            part.keys[self._next] = key
            part.numbers[key] = self._next

    def remove(self, partition: Hashable, key: str) -> None:
        """Take `key` out; nothing happens where it is not there."""
        with self._lock:
            part = self._parts.get(partition)
            if part is not None:
                self._remove(part, key)
                if not part.keys:
                    del self._parts[partition]

    def nearest(self, partition: Hashable, vector: Vectors, n: int) -> list[tuple[str, float]]:
        """The `n` keys of the partition with the largest inner product with `vector`, best first."""
        import faiss

        self._check(vector)
        with self._lock:
            part = self._parts.get(partition)
            if part is None:
                return []
            # On one thread: two wait for each other where a core is busy (5 ms instead of 0.4 at 10,000 vectors).
            threads = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(1)
            try:
                scores, numbers = part.index.search(vector[None, :], min(n, len(part.keys)))
            finally:
                faiss.omp_set_num_threads(threads)
            return [(part.keys[int(i)], float(s)) for s, i in zip(scores[0], numbers[0], strict=True) if i >= 0]

    def _check(self, vector: Vectors) -> None:
        if vector.shape != (self.dimension,):
            raise InvalidValue(f"a vector of shape {vector.shape}, where the index holds ({self.dimension},)")
        if not is_unit(vector):
            raise BadVector(
                f"a vector of length {np.linalg.norm(vector.astype(np.float64)):.4g}, where the index holds those of "
                "length 1; use labkit.embeddings.unit"
            )

    @staticmethod
    def _remove(part: _Part, key: str) -> None:
        number = part.numbers.pop(key, None)
        if number is not None:
            part.index.remove_ids(np.array([number], np.int64))
            del part.keys[number]
