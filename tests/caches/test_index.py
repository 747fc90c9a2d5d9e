"""The index by brute force, and what it refuses to hold."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.caches.index import Index
from labkit.embeddings import BadVector
from labkit.request import InvalidValue


def rows(n: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_the_nearest_are_those_of_a_comparison_with_all() -> None:
    index, kept = Index(8), rows(50, 1)
    for i, row in enumerate(kept):
        index.add("p", str(i), row)
    assert len(index) == 50
    for asked in rows(10, 2):
        best = np.argsort(-(kept @ asked))[:5]
        found = index.nearest("p", asked, 5)
        assert [key for key, _ in found] == [str(i) for i in best]
        np.testing.assert_allclose([score for _, score in found], (kept @ asked)[best], atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, 3.0, 0.0])
def test_a_vector_that_is_not_finite_or_not_of_length_one_neither_enters_nor_is_looked_up(bad: float) -> None:
    index, good = Index(8), rows(1, 3)[0]
    wrong = np.zeros(8, np.float32)
    wrong[2] = bad
    index.add("p", "good", good)
    with pytest.raises(BadVector, match="length"):
        index.add("p", "wrong", wrong)
    with pytest.raises(BadVector, match="length"):
        index.nearest("p", wrong, 1)
    assert index.places() == {("p", "good")}


def test_another_shape_is_named() -> None:
    with pytest.raises(InvalidValue, match="shape"):
        Index(8).add("p", "k", np.ones(7, np.float32))
