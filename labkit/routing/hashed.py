"""A fast embedder for routers: it hashes words and pairs of words to a vector in a fraction of a millisecond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.extras import extra
from labkit.request import InvalidValue, is_whole

if TYPE_CHECKING:
    from labkit.embeddings import Vectors

_TOKEN = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class HashedWords:
    """Texts as counts of their words, marks and pairs of neighbours, hashed to `dimension` numbers; an `Embedder`.

    It knows no meanings: two paraphrases without a common word look unrelated to it. It sees vocabulary and form, and these
    tell one kind of request from another. It needs no model. Speed matters here, because a router that takes as long as the
    small model's first token uses up the time it was to save (`python -m benchmarks.routing` compares it with MiniLM).
    """

    dimension: int = 256

    def __post_init__(self) -> None:
        if not is_whole(self.dimension, 1):
            raise InvalidValue(f"a vector of {self.dimension!r} numbers; use at least 1, some hundreds to keep words apart")

    @property
    def name(self) -> str:
        """The kind of hashing, its dimension, and the version of scikit-learn, which does the hashing."""
        return f"hashed-words-{self.dimension}@{version('scikit-learn')}"

    @cached_property
    def _hash(self) -> Any:
        with extra("analysis"):
            from sklearn.feature_extraction.text import HashingVectorizer  # not above: it takes seconds to import

        return HashingVectorizer(n_features=self.dimension, ngram_range=(1, 2), token_pattern=_TOKEN, norm="l2")

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text, each of length 1; a text without a word or mark has a row of zeros.

        Raises `InvalidValue` for a lone string, which would otherwise be read letter by letter.
        """
        if isinstance(texts, str):
            raise InvalidValue(f"encode wants a list of texts, not the one text {texts!r:.60}; write [text]")
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return np.ascontiguousarray(self._hash.transform(texts).toarray(), np.float32)
