"""Texts as vectors whose inner product says how alike they are.

`embedder()` is all-MiniLM-L6-v2, which comes in a PyPI package and needs no network; with one, any sentence-transformers
model can be named instead. Whatever turns texts into vectors and can tell itself from other models is an `Embedder`; `unit`
brings what it gives to length one, or refuses it.
"""

from labkit.embeddings.sentence import Embedder, SentenceEmbedder, embedder
from labkit.embeddings.vectors import BadVector, Vectors, is_unit, unit

__all__ = ["BadVector", "Embedder", "SentenceEmbedder", "Vectors", "embedder", "is_unit", "unit"]
