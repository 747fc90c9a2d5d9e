"""Vectors at length one, by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from labkit.embeddings import BadVector, is_unit, unit


def test_rows_of_any_finite_length_come_to_length_one_in_their_direction() -> None:
    found = unit([[3.0, 4.0], [1e20, 0.0], [0.0, -1e-20]], 2, "words")
    np.testing.assert_allclose(found, [[0.6, 0.8], [1, 0], [0, -1]], atol=1e-7)
    assert found.dtype == np.float32
    assert all(is_unit(row) for row in found)
    assert unit(np.zeros((0, 2)), 2, "words").shape == (0, 2)


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [0, -np.inf], [0, 0]])
def test_what_has_no_direction_is_refused_and_its_embedder_named(bad: list[float]) -> None:
    with pytest.raises(BadVector, match="words"):
        unit([[1.0, 0.0], bad], 2, "words")
    assert not is_unit(np.array(bad, np.float32))


def test_another_shape_is_refused() -> None:
    for wrong in ([1.0, 2.0], [[1.0, 2.0, 3.0]]):
        with pytest.raises(BadVector, match="shape"):
            unit(wrong, 2, "words")


def test_the_room_loads_no_model_library_before_it_is_asked_for_one() -> None:
    code = "import sys, labkit.embeddings; print(*{'torch', 'sentence_transformers', 'faiss', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
