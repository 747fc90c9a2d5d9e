"""Vectors of texts that come again and again: pools of examples, and rules that stand in every prompt."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from labkit.embeddings import Embedder, Vectors
from labkit.request import InvalidValue


class Remembered:
    """`embedder`, which encodes a text once: it keeps the vectors of the `limit` texts that were used last.

    Threads may share it. A lone surrogate (half of an emoji, from a cut text) has no UTF-8 form, so "?" is encoded for it.
    Raises `InvalidValue` for what is no embedder, such as a model's name.
    """

    def __init__(self, embedder: Embedder, limit: int = 10_000) -> None:
        if isinstance(embedder, str | bytes) or not callable(getattr(embedder, "encode", None)):
            raise InvalidValue(f"embedder is {embedder!r:.80}; give one, such as labkit.embeddings.embedder()")
        self.embedder, self.limit = embedder, limit
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The embedder's name: its vectors are these."""
        return self.embedder.name

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self.embedder.dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row a text, shape (len(texts), dimension), float32, each of length 1."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        keys = [hashlib.blake2b(text, digest_size=16).digest() for text in encoded]
        with self._lock:
            rows = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text.decode() for key, text in zip(keys, encoded, strict=True) if key not in rows}
        if new:
            rows.update(zip(new, self.embedder.encode(list(new.values())), strict=True))
        with self._lock:
            for key in keys:
                self._kept[key] = rows[key]
                self._kept.move_to_end(key)
            while len(self._kept) > self.limit:
                self._kept.popitem(last=False)
        return np.stack([rows[key] for key in keys]) if keys else self.embedder.encode([])
