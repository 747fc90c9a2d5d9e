"""An embedder for routers in a hurry: words and pairs of words, hashed to a vector in a fraction of a millisecond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn import __version__ as sklearn_version
from sklearn.feature_extraction.text import HashingVectorizer

from labkit.embeddings import Vectors
from labkit.request import InvalidRequest

_TOKEN = r"\w+|[^\w\s]"


class HashedWords:
    """Texts as counts of their words, marks and pairs of neighbours, hashed to `dimension` numbers; an `Embedder`.

    It knows no meanings: paraphrases without a common word are strangers to it. What it sees is vocabulary and shape, which
    is what tells one kind of request from another, and it takes no model: a router that takes as long as the small model's
    first token has spent what it was to save (`python -m benchmarks.routing` compares it with MiniLM).
    """

    def __init__(self, dimension: int = 256) -> None:
        if dimension < 1:
            raise InvalidRequest(f"a vector of {dimension} numbers; use at least 1, some hundreds to keep words apart")
        self._hash = HashingVectorizer(n_features=dimension, ngram_range=(1, 2), token_pattern=_TOKEN, norm="l2")

    @property
    def name(self) -> str:
        """The kind of hashing, its size, and scikit-learn's version, whose hash it is."""
        return f"hashed-words-{self.dimension}@{sklearn_version}"

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return int(self._hash.n_features)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text, each of length 1; a text without a word or mark has a row of zeros.

        Raises `InvalidRequest` for a lone string, which would be taken for its letters.
        """
        if isinstance(texts, str):
            raise InvalidRequest(f"encode wants a list of texts, not the one text {texts!r:.60}; write [text]")
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return np.ascontiguousarray(self._hash.transform(texts).toarray(), np.float32)
