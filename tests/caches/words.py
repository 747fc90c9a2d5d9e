"""An embedder of which everything is known: a text is the bag of its words, in whatever order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from labkit.embeddings import Vectors


class Words:
    """Each word is a fixed random direction; a text is their sum at length 1. Equal bags score 1, others clearly less."""

    def __init__(self, name: str = "words-1", dimension: int = 64) -> None:
        self.name, self.dimension = name, dimension
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.encoded += len(texts)
        rows = np.stack([sum((self._word(w) for w in text.lower().split()), np.zeros(self.dimension)) for text in texts])
        return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(f"{self.name} {word}".encode()).digest()[:8], "big")
        return np.random.default_rng(seed).normal(size=self.dimension)
