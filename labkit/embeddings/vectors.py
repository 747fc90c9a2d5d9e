"""Vectors of length one: the check and the scaling that come before any comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.request import LabError

Vectors = NDArray[np.float32]
_OFF = 1e-3  # tolerance; float32 sums of a few hundred squares are never that far from length one


class BadVector(LabError, ValueError):
    """A vector from an embedder or a store that cannot be compared: of another shape, not finite, or of no proper length."""


def unit(rows: ArrayLike, dimension: int, whose: str) -> Vectors:
    """`rows` scaled to length one, shape (n, dimension), float32.

    An inner product is a cosine only between vectors of length one; a longer vector would seem near to everything. Raises
    `BadVector`, which names the embedder (`whose`), for another shape and for rows that are not finite or have length zero.
    """
    found = np.asarray(rows, np.float64)  # because in float32 the square of 1e20 is infinite
    if found.ndim != 2 or found.shape[1] != dimension:
        raise BadVector(f"{whose} gave vectors of shape {found.shape}, where (n, {dimension}) is wanted")
    lengths = np.linalg.norm(found, axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        raise BadVector(f"{whose} gave a vector of length {lengths[bad[0]]} for text {bad[0]}; it cannot be compared")
    return np.ascontiguousarray(found / lengths[:, None], np.float32)


def is_unit(vector: Vectors) -> bool:
    """Whether all numbers of `vector` are finite and its length is one, within 0.001."""
    return bool(abs(float(np.linalg.norm(np.asarray(vector, np.float64))) - 1) <= _OFF)
